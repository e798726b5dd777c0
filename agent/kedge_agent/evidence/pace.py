"""Is the newer engine slower on the very frames that the older one ran too?

Paired, so that whatever holds the board down (heat, other work) holds both down: a board that
throttles makes both slow, a slow engine is slow beside the other. The pairs are judged by the
same always-valid betting as objects, in blocks, because neighbouring frames share the board's
moods. The unit is a block's share of frames on which the limit was passed; the null hypothesis is
that the median frame keeps it.
"""

from __future__ import annotations

from kedge_shared.betting import Bet, Capital

#: Pairs of a block.
BLOCK = 10
_SLOW = (Bet(0.9, 0.5), Bet(0.5, 0.5))


class PaceTest:
    """Adds up pairs of frame times.

    Args:
        limit: Times as long as the older that the newer may take; ``None``: nothing is judged.
    """

    def __init__(self, limit: float | None) -> None:
        self._limit = limit
        self._capital = Capital(0.5, _SLOW)
        self._over = self._pairs = 0
        self.log = 0.0

    def add(self, old_ms: float, new_ms: float) -> None:
        """Takes one frame's times, milliseconds.

        ``log``, the natural logarithm of what was won against the null hypothesis, is the highest
        so far.
        """
        if self._limit is None or old_ms <= 0:
            return
        self._over += new_ms > self._limit * old_ms
        self._pairs += 1
        if self._pairs == BLOCK:
            self._capital.add(self._over / BLOCK)
            self.log = max(self.log, float(self._capital.log))
            self._over = self._pairs = 0
