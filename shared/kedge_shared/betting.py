"""Always-valid tests by betting: evidence that may be looked at after every observation.

A gambler bets against the null hypothesis with one unit of capital. As long as the null is true no
bet is in their favour, so capital is a non-negative supermartingale and by Ville's inequality it
ever reaches ``1 / a`` with probability ``a`` at the most, however often one looks and whenever one
stops. What they have won is evidence, without a plan of how much data there will be.

Sources: Waudby-Smith and Ramdas, "Estimating means of bounded random variables by betting" (JRSS B
86, 2024), whose capital process this is; Ramdas, Grünwald, Vovk and Shafer, "Game-theoretic
statistics and safe anytime-valid inference" (Statistical Science 38, 2023) for e-processes and
their mixtures; Howard, Ramdas, McAuliffe and Sekhon, "Time-uniform, nonparametric, nonasymptotic
confidence sequences" (Annals of Statistics 49, 2021), against which they are to be seen.
"""

# The board bets frame by frame, the server board by board: one mathematics, here.

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

Values: TypeAlias = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Bet:
    """A part of the capital and how boldly it is played.

    Attributes:
        fraction: Share of it that is staked each time, 0..1, both ends excluded: a stake of all
            would be ruined by a single observation.
        weight: Share of the capital; the weights of a process sum to one.
    """

    fraction: float
    weight: float


class Capital:
    """Bets that the mean of observations in 0..1, given those before, is above ``null``.

    The stakes are fixed before the first observation, so the process is predictable whatever
    comes; several stakes side by side stand for not knowing how large the effect is.

    Args:
        null: The mean that the null hypothesis does not exceed, 0..1, both excluded.
        bets: Stakes.
        shape: Of an observation: () on a board, (runs,) in a simulation of many boards at once.
    """

    def __init__(self, null: float, bets: tuple[Bet, ...], shape: tuple[int, ...] = ()) -> None:
        if not 0 < null < 1:
            raise ValueError(f"null hypothesis {null} is not between 0 and 1")
        self._null = null
        column = (len(bets), *(1 for _ in shape))
        self._fractions = np.array([each.fraction for each in bets]).reshape(column)
        weights = np.array([each.weight for each in bets]).reshape(column)
        self._logs: Values = np.broadcast_to(np.log(weights), (len(bets), *shape)).copy()

    def add(self, values: npt.ArrayLike) -> None:
        """Plays one round.

        Args:
            values: One observation, 0..1; NaN: nothing was observed, nothing is played.
        """
        self._logs += _won(self._null, self._fractions, values)

    @property
    def log(self) -> Values:
        """Natural logarithm of the capital: 0 at the start, the evidence against the null."""
        return np.asarray(np.logaddexp.reduce(self._logs, axis=0))


def path(null: float, bets: tuple[Bet, ...], values: npt.ArrayLike) -> Values:
    """Returns the log-capital after each of a row of observations, all at once.

    Args:
        null: As :class:`Capital`.
        bets: Stakes.
        values: (observations,), 0..1; NaN is none.
    """
    fractions = np.array([[each.fraction] for each in bets])
    weights = np.log([[each.weight] for each in bets])
    logs = weights + np.cumsum(_won(null, fractions, values), axis=1)
    return np.asarray(np.logaddexp.reduce(logs, axis=0))


def _won(null: float, fractions: Values, values: npt.ArrayLike) -> Values:
    """Returns what each stake won, as a logarithm: (stakes, …)."""
    won = np.log1p(fractions * (np.asarray(values, dtype=np.float64) / null - 1))
    return np.where(np.isnan(won), 0.0, won)
