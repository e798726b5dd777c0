"""Tests that may be looked at after every device. Pure arithmetic, no facts about devices.

All three are e-processes, non-negative with mean at most 1 under their hypothesis whenever one
stops, so by Ville's inequality the chance that one *ever* exceeds 1/alpha is at most alpha: peeking
costs nothing (Ville 1939; Ramdas, Grünwald, Vovk, Shafer, "Game-theoretic statistics and safe
anytime-valid inference", Statistical Science 2023).

* Failures: Wald's sequential probability ratio test of Bernoulli outcomes (Annals of Mathematical
  Statistics 1945). It halts at Ville's bound 1/alpha and passes at Wald's beta/(1 - alpha).
* Slower, or seeing less: signs of paired differences bet against a fair coin (Waudby-Smith and
  Ramdas, "Estimating means of bounded random variables by betting", JRSS B 2024), a mixture over
  fixed stakes (kedge_shared.betting, by which boards judge too). A sign asks nothing of the
  distribution of frame times.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from kedge_shared.betting import Bet, path

#: Stakes of the bet; the mean of e-processes is one.
_STAKES = tuple(Bet(each, 1 / 3) for each in (0.2, 0.5, 0.9))
_FAIR = 0.5


@dataclass(frozen=True)
class Walk:
    """How far a test came.

    Attributes:
        against: Largest log-evidence that the class is bad, over all prefixes.
        leaning: The same of all of them, at the end.
        for_it: Largest log-evidence that it is good.
        proven_at: Devices after which ``for_it`` first crossed its bound, or ``None``.
        seen: Devices whose outcome is known.
    """

    against: float
    leaning: float
    for_it: float
    proven_at: int | None
    seen: int


def halt_bound(alpha: float) -> float:
    """Returns the log-evidence that halts."""
    return math.log(1 / alpha)


def pass_bound(alpha: float, beta: float) -> float:
    """Returns the log-evidence that passes (Wald's lower boundary, its sign turned)."""
    return math.log((1 - alpha) / beta)


def clean_needed(good: float, bad: float, alpha: float, beta: float) -> int:
    """Returns how many devices without a failure pass: 31 for 1 % against 10 % at 5 %, 5 %."""
    return math.ceil(pass_bound(alpha, beta) / -_healthy_step(good, bad))


def _healthy_step(good: float, bad: float) -> float:
    return math.log((1 - bad) / (1 - good))


def failures(outcomes: Iterable[bool | None], good: float, bad: float, *, proof: float) -> Walk:
    """Walks over devices in the order in which they took the release up.

    Failures show sooner than health, so the known outcomes alone are a sample in favour of halting
    early and, because a hang shows last, of passing early too. A device that has not spoken
    therefore counts as healthy where the release is accused and as failed where it is cleared:
    whatever it says later, both crossings stand.

    Args:
        outcomes: True for failed, False for healthy, ``None`` for not yet known.
        good: Share of failures that is borne.
        bad: Share that is not.
        proof: Log-evidence at which the class has proven itself.
    """
    up, down = math.log(bad / good), _healthy_step(good, bad)
    accusing = clearing = against = for_it = 0.0
    proven_at, seen = None, 0
    for at, failed in enumerate(outcomes, start=1):
        accusing += up if failed else down
        clearing += down if failed is False else up
        against, for_it = max(against, accusing), max(for_it, -clearing)
        seen += failed is not None
        if proven_at is None and for_it >= proof - 1e-12:
            proven_at = at
    return Walk(against, accusing, for_it, proven_at, seen)


def signs(worse: Sequence[bool], *, proof: float) -> Walk:
    """Walks over paired differences: True where the device with the release is worse.

    Args:
        worse: In the order in which the devices took the release up.
        proof: Log-evidence at which the class has proven itself.
    """
    if not worse:
        return Walk(0.0, 0.0, 0.0, None, 0)
    turns = np.asarray(worse, dtype=np.float64)
    accusing, clearing = path(_FAIR, _STAKES, turns), path(_FAIR, _STAKES, 1 - turns)
    proven = np.flatnonzero(clearing >= proof)
    return Walk(
        against=max(0.0, float(accusing.max())),
        leaning=float(accusing[-1]),
        for_it=max(0.0, float(clearing.max())),
        proven_at=int(proven[0]) + 1 if proven.size else None,
        seen=len(worse),
    )
