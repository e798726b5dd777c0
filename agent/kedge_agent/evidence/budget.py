"""How much of the board's time the shadow takes, and that it takes no more."""

from __future__ import annotations

import statistics
from collections import deque

_FRAMES = 50
_NEW_COST = 0.2
#: A camera that stood still has earned nothing for the time.
_LONGEST_MS = 1000.0


class Budget:
    """Earns a share of each live frame's time, and spends it on shadow frames.

    A shadow frame may begin when what it is expected to cost has been earned, so the stride
    follows by itself: ``cost / (share · frame time)``. It costs what it took, or what it slowed
    the live frames down by, whichever is more; so whatever the shadow's thread does to the loop,
    over any time it is ``share`` of it and one shadow frame at the most.

    Args:
        share: Of the time between two live frames, 0..1.
    """

    def __init__(self, share: float) -> None:
        self._share = share
        self._earned = self._cost = self._slowed = self._earnings = 0.0
        self._alone: deque[float] = deque(maxlen=_FRAMES)

    def frame(self, period_ms: float, live_ms: float, *, shadowed: bool) -> None:
        """Takes one live frame.

        Args:
            period_ms: Since the frame before, milliseconds.
            live_ms: Time that the serving engine took for it, milliseconds.
            shadowed: The shadow ran meanwhile.
        """
        earned = self._share * min(period_ms, _LONGEST_MS)
        self._earnings += _NEW_COST * (earned - self._earnings) if self._earnings else earned
        # What is saved up is one shadow frame: a quiet night does not pay for a busy morning.
        self._earned = min(self._earned + earned, self._cost + earned)
        if not shadowed:
            self._alone.append(live_ms)
        elif self._alone:
            self._slowed += max(0.0, live_ms - statistics.median(self._alone))

    def may_run(self) -> bool:
        """Says whether a shadow frame is paid for."""
        return self._earned >= self._cost

    def ran(self, took_ms: float) -> None:
        """Pays for a shadow frame.

        Args:
            took_ms: Its time, milliseconds.
        """
        cost, self._slowed = max(took_ms, self._slowed), 0.0
        self._earned -= cost
        self._cost += _NEW_COST * (cost - self._cost) if self._cost else cost

    @property
    def stride(self) -> float:
        """Live frames for one shadow frame, at present costs; 0 before anything was measured."""
        return max(1.0, self._cost / self._earnings) if self._earnings else 0.0
