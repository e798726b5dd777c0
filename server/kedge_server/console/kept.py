"""Figures that cost something: kept so long that looking at them costs a hundredth of a core."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Generic, TypeVar

T = TypeVar("T")
_SHARE = 0.01
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


def kept_seconds(cost_seconds: float) -> float:
    """Returns how long a figure is kept that took so long: what asks all the time pays 1 %."""
    return cost_seconds / _SHARE


class Kept(Generic[T]):
    """Figures by key, the ones asked for last. Thread-safe; one at a time is worked out."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._held: dict[Hashable, Figure[T]] = {}

    def get(self, key: Hashable, make: Callable[[], T]) -> Figure[T]:
        """Returns a figure, worked out now or not long ago."""
        with self._lock:
            found = self._held.pop(key, None)
            if found is None or found.until <= time.monotonic():
                found = _made(make)
            self._held[key] = found
            while len(self._held) > _MOST_KEYS:
                del self._held[next(iter(self._held))]
            return found

    def forget(self) -> None:
        """Has everything worked out anew: what it rests on was changed by a person just now."""
        with self._lock:
            self._held.clear()


def _made(make: Callable[[], T]) -> Figure[T]:
    begun = time.perf_counter()
    value = make()
    cost = time.perf_counter() - begun
    return Figure(value, time.time(), time.monotonic() + kept_seconds(cost))
