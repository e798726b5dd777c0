"""How much slower is one engine than another? Paired rounds and an interval, without I/O.

A neighbour who takes the core makes single frames many times as long, so medians of two separate
lists say little on a busy board. Within a round both engines meet the same moment, and the order
turns, so that what falls on the first or on the second of a round falls on both alike.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

from kedge_agent.local_protocol import Ratio

#: Rounds are doubled so often while the interval holds the limit.
_LOOKS = 4
#: Chance that one of the looks is wrong. A harm verdict quarantines, so it is a small one.
_ERROR_SHARE = 0.01


def looks(rounds: int) -> tuple[int, ...]:
    """Returns after how many rounds in all the ratio is looked at."""
    return tuple(rounds * 2**at for at in range(_LOOKS))


def paired_ratio(candidate_ms: Sequence[float], active_ms: Sequence[float]) -> Ratio:
    """Returns the median over rounds of candidate over active, with its interval.

    The interval is that of a median by order statistics (Conover, "Practical Nonparametric
    Statistics", 3rd edition, section 3.2), which asks nothing of the distribution. Looking again
    after more rounds is paid for: each look bears its part of the chance of error.

    Args:
        candidate_ms: Frame time of each round, milliseconds.
        active_ms: The same of the active engine, round by round.
    """
    ratios = sorted(new / old for new, old in zip(candidate_ms, active_ms, strict=True))
    count = len(ratios)
    outside = _outside(count, _ERROR_SHARE / _LOOKS)
    low = ratios[outside - 1] if outside else 0.0
    high = ratios[count - outside] if outside else None
    return Ratio(median=statistics.median(ratios), low=low, high=high, rounds=count)


def settled(ratio: Ratio, limit: float | None) -> bool:
    """Says whether more rounds would be for nothing."""
    if limit is None:
        return True
    return ratio.low > limit or (ratio.high is not None and ratio.high <= limit)


def _outside(count: int, error_share: float) -> int:
    """Returns how many values lie below the interval, counting its lower end; 0 is: none can be.

    The largest ``k`` with P(Binomial(count, 1/2) < k) ≤ error_share / 2.
    """
    below, outside = 0.0, 0
    for k in range(count // 2):
        ways = math.lgamma(count + 1) - math.lgamma(k + 1) - math.lgamma(count - k + 1)
        below += math.exp(ways - count * math.log(2))
        if below > error_share / 2:
            break
        outside = k + 1
    return outside
