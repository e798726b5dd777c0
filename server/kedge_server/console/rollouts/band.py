"""How sure one can be of a share of failures, whenever one looks. Pure arithmetic.

A Beta(1/2, 1/2) mixture of likelihood ratios against a share p is a martingale under p, so by
Ville's inequality the shares that it has not reached 1/alpha against hold the true one at every
look with probability 1 - alpha (Robbins, "Statistical methods related to the law of the iterated
logarithm", Annals of Mathematical Statistics 41, 1970).
"""

from __future__ import annotations

import math
from collections.abc import Callable

_HALF = 0.5
_STEPS = 60


def band(failed: int, known: int, alpha: float = 0.05) -> tuple[float, float]:
    """Returns the least and the largest share of failing boards that what was seen allows.

    Args:
        failed: Boards that failed.
        known: Boards whose outcome is known.
        alpha: Chance that the true share is ever outside.
    """
    if not known:
        return 0.0, 1.0
    bound = math.log(1 / alpha)
    mixture = _log_beta(failed + _HALF, known - failed + _HALF) - _log_beta(_HALF, _HALF)

    def allowed(share: float) -> bool:
        likelihood = failed * math.log(share) + (known - failed) * math.log1p(-share)
        return mixture - likelihood < bound

    middle = min(max(failed / known, 1e-9), 1 - 1e-9)
    low = 0.0 if not failed else _edge(allowed, middle, 1e-12)
    high = 1.0 if failed == known else _edge(allowed, middle, 1 - 1e-12)
    return low, high


def _edge(allowed: Callable[[float], bool], inside: float, outside: float) -> float:
    for _ in range(_STEPS):
        middle = (inside + outside) / 2
        inside, outside = (middle, outside) if allowed(middle) else (inside, middle)
    return inside


def _log_beta(a: float, b: float) -> float:
    return math.lgamma(a) + math.lgamma(b) - math.lgamma(a + b)
