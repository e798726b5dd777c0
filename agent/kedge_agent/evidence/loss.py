"""Does the newer engine lose objects that the older one sees? A test whose unit is the track.

Frames of one object are no independent evidence: an engine that misses a bottle misses it on most
of its frames. So each distinct object counts once, with the share of its looks on which one engine
saw it and the other did not.

*Harm* (a chance of ``harm_share`` at the most that it is a false alarm, at all looks together) is
either of:

- the newer engine misses more than half of the ``disagreement`` that the manifest grants two
  equally good engines, **and** it is the worse of the two: its losses outweigh its gains beyond
  what *any* symmetric disagreement explains (chance 10 % at the most, whatever the disagreement);
- it misses more than ``1 - min_agreement``, whatever else it sees. Gains do not excuse this: an
  engine that takes every circle for a square loses all and gains as much.

*Health* is both: the net loss is less than ``max_loss``, and less than ``1 - min_agreement`` is
missed (``error_share`` each).

Why two conditions for harm: the sign of the differences alone needs seven lost tracks and no gain
before it may speak at 1 % (2^-7), which 60 tracks with a loss of 10 % hold less than half of the
time. The stated disagreement is what makes fewer enough; the second condition is what keeps an
engine that is merely *different* from paying for that.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from kedge_agent.evidence import bars
from kedge_shared.betting import Bet, Capital, Values
from kedge_shared.manifest import Shadow

#: Chosen in benchmarks/shadow.py for a loss of 10 % in 60 tracks; a mixture, so that neither 5 %
#: nor everything lost goes unseen.
_MISSING = (Bet(0.06, 0.5), Bet(0.12, 0.5))
_PLAIN = (Bet(0.95, 1.0),)
_SHARP = (Bet(0.5, 1.0),)
#: Differences are stretched so much before their sign counts in full: losses of a few looks on
#: many tracks are as much of a loss as few tracks lost whole.
_STRETCH = 8.0
_PLAIN_WEIGHT = 0.7
_BLIND = (Bet(0.1, 0.25), Bet(0.3, 0.5), Bet(0.6, 0.25))
_SAFE = (Bet(0.9, 0.5), Bet(0.5, 0.5))
_SIGHTED = (Bet(0.9, 0.5), Bet(0.6, 0.5))
#: A null of nothing at all, or of everything, cannot be bet against.
_LEAST = 1e-3


@dataclass(frozen=True)
class Findings:
    """Natural logarithms of capital won against each null hypothesis; arrays in a simulation.

    Attributes:
        missing: Against "misses no more than the stated disagreement's half"; highest so far.
        worse: Against "losses and gains are symmetric"; highest so far.
        blind: Against "misses no more than ``1 - min_agreement``"; highest so far.
        safe: Against "the net loss is ``max_loss`` or more".
        sighted: Against "misses ``1 - min_agreement`` or more".
    """

    missing: Values
    worse: Values
    blind: Values
    safe: Values
    sighted: Values

    def harm(self, share: float) -> npt.NDArray[np.bool_]:
        """Says whether harm is proven, with the chance ``share`` of a false alarm."""
        lost = bars.loses(self.missing, self.worse, share)
        return np.asarray(lost | bars.proven(self.blind, share))

    def health(self, share: float) -> npt.NDArray[np.bool_]:
        """Says whether health is proven, each part of it with the chance ``share`` of error."""
        return np.asarray(bars.healthy(self.safe, self.sighted, share))


class LossTest:
    """Adds up tracks.

    Args:
        terms: What the newer engine's manifest demands.
        shape: () on a board, (runs,) in a simulation.
    """

    def __init__(self, terms: Shadow, shape: tuple[int, ...] = ()) -> None:
        floor = _inside(1 - terms.min_agreement)
        self._both_ways = terms.must_hold == "agreement"
        self._missing = Capital(_inside(terms.disagreement / 2), _MISSING, shape)
        self._plain = Capital(0.5, _PLAIN, shape)
        self._sharp = Capital(0.5, _SHARP, shape)
        self._blind = Capital(floor, _BLIND, shape)
        self._safe = Capital(_inside((1 - terms.max_loss) / 2), _SAFE, shape)
        self._sighted = Capital(1 - floor, _SIGHTED, shape)
        never = np.zeros(shape)
        self._best = [never.copy(), never.copy(), never.copy()]

    def add(self, missed: npt.ArrayLike, gained: npt.ArrayLike) -> None:
        """Takes one track.

        Args:
            missed: Of the looks on which the older engine saw it, the share on which the newer
                did not, 0..1; NaN if the older never saw it.
            gained: The other way round.
        """
        lost, won = np.asarray(missed, dtype=float), np.asarray(gained, dtype=float)
        net = np.nan_to_num(lost) - np.nan_to_num(won)
        apart = np.fmax(lost, won) if self._both_ways else lost
        self._missing.add(lost)
        self._plain.add((1 + net) / 2)
        self._sharp.add((1 + np.clip(_STRETCH * net, -1, 1)) / 2)
        self._blind.add(apart)
        self._safe.add((1 - net) / 2)
        self._sighted.add(1 - apart)
        for best, now in zip(self._best, self._harms(), strict=True):
            np.maximum(best, now, out=best)

    def _harms(self) -> tuple[Values, Values, Values]:
        worse = np.logaddexp(
            self._plain.log + math.log(_PLAIN_WEIGHT), self._sharp.log + math.log(1 - _PLAIN_WEIGHT)
        )
        return self._missing.log, worse, self._blind.log

    @property
    def findings(self) -> Findings:
        """What is proven so far."""
        missing, worse, blind = (each.copy() for each in self._best)
        return Findings(missing, worse, blind, self._safe.log, self._sighted.log)


def _inside(share: float) -> float:
    return min(max(share, _LEAST), 1 - _LEAST)
