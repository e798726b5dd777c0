"""Figures that cost something: kept so long that looking at them costs little of a core."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Generic, TypeVar

T = TypeVar("T")
#: Of a core: a page shows two such figures and may cost a hundredth.
_SHARE = 0.003
#: Nobody looks at an older one of the fleet's figures, however large it is.
LONGEST_SECONDS = 60.0
_MOST_KEYS = 64


@dataclass(frozen=True)
class Figure(Generic[T]):
    """Something that was worked out.

    Attributes:
        value: It.
        at: Unix seconds.
        until: Monotonic seconds; from then on it is worked out anew.
    """

    value: T
    at: float
    until: float


def kept_seconds(cost_seconds: float, longest_seconds: float = LONGEST_SECONDS) -> float:
    """Returns how long a figure is kept that took so long: 0.3 % of a core is paid."""
    return min(longest_seconds, cost_seconds / _SHARE)


class Kept(Generic[T]):
    """Figures by key, the ones asked for last. Thread-safe; each is worked out by one at a time.

    Args:
        longest_seconds: No figure is kept for longer, whatever it cost.
    """

    def __init__(self, longest_seconds: float = LONGEST_SECONDS) -> None:
        self._longest = longest_seconds
        self._lock = threading.Lock()
        self._held: dict[Hashable, Figure[T]] = {}
        self._at_work: dict[Hashable, threading.Lock] = {}

    def get(self, key: Hashable, make: Callable[[], T]) -> Figure[T]:
        """Returns a figure, worked out now or not long ago."""
        found = self._fresh(key)
        if found is not None:
            return found
        with self._lock:
            mine = self._at_work.setdefault(key, threading.Lock())
        with mine:
            # Whoever was at it may have just ended.
            found = self._fresh(key) or _made(make, self._longest)
            with self._lock:
                self._held.pop(key, None)
                self._held[key] = found
                self._at_work.pop(key, None)
                while len(self._held) > _MOST_KEYS:
                    del self._held[next(iter(self._held))]
        return found

    def _fresh(self, key: Hashable) -> Figure[T] | None:
        with self._lock:
            found = self._held.get(key)
        return found if found is not None and found.until > time.monotonic() else None

    def forget(self) -> None:
        """Has everything worked out anew: what it rests on was changed by a person just now."""
        with self._lock:
            self._held.clear()


def _made(make: Callable[[], T], longest_seconds: float) -> Figure[T]:
    begun = time.perf_counter()
    value = make()
    cost = time.perf_counter() - begun
    return Figure(value, time.time(), time.monotonic() + kept_seconds(cost, longest_seconds))
