"""How slow the other side may be. Timeouts of silence alone let one byte every so often go on."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import httpx


@dataclass(frozen=True, kw_only=True)
class LeastRate:
    """What a body must bring.

    Attributes:
        bytes_per_second: At least.
        window_seconds: Over each such span.
    """

    bytes_per_second: float
    window_seconds: float


#: A tenth of the slowest mobile link in use (LTE Cat NB1 with poor coverage, some 0.6 kB/s): who
#: is slower does not want to be waited for.
LEAST_RATE = LeastRate(bytes_per_second=64.0, window_seconds=60.0)


class Pace:
    """Holds a body that is being read to a least rate.

    Args:
        least: Rate.
        clock: Tells seconds, monotonic.
    """

    def __init__(self, least: LeastRate, clock: Callable[[], float] = time.monotonic) -> None:
        self._least, self._clock = least, clock
        self._since, self._bytes = clock(), 0

    def take(self, count: int) -> None:
        """Counts bytes that came.

        Raises:
            httpx.ReadTimeout: Too few came, as if none had.
        """
        self._bytes += count
        now, least = self._clock(), self._least
        if now - self._since < least.window_seconds:
            return
        if self._bytes < least.bytes_per_second * (now - self._since):
            raise httpx.ReadTimeout(f"slower than {least.bytes_per_second:g} bytes per second")
        self._since, self._bytes = now, 0
