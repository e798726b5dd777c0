"""A frame, and the slots of size one between the sources and the engine."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass

from kedge_shared.vision import Frame


@dataclass(frozen=True)
class Captured:
    """One frame as it came from a source.

    Attributes:
        seq: Counts from zero without gaps, for each source; so a lost frame shows at the sink.
        image: (h, w, 3) BGR uint8.
        at: Monotonic seconds.
        source: Name of the source.
    """

    seq: int
    image: Frame
    at: float
    source: str = "main"


class LatestFrames:
    """Holds the newest frame of each source. What is overwritten untaken counts as dropped.

    Args:
        names: Of the sources; each gets its own slot, so that a fast one starves no other.
    """

    def __init__(self, names: Sequence[str] = ("main",)) -> None:
        self._ready = threading.Condition()
        self._order = list(names)
        self._frames: dict[str, Captured] = {}
        self._dropped = dict.fromkeys(names, 0)

    @property
    def dropped(self) -> int:
        """Frames overwritten so far, of all sources."""
        return sum(self._dropped.values())

    def dropped_of(self, source: str) -> int:
        """Frames of one source overwritten so far."""
        return self._dropped[source]

    def lose(self, source: str) -> None:
        """Counts a frame that was taken and could not be answered."""
        with self._ready:
            self._dropped[source] += 1

    def put(self, frame: Captured) -> None:
        """Offers a frame."""
        with self._ready:
            if frame.source in self._frames:
                self._dropped[frame.source] += 1
            self._frames[frame.source] = frame
            self._ready.notify()

    def take(self, timeout_seconds: float) -> Captured | None:
        """Waits for a frame, the sources in turn; ``None`` when none came in time."""
        with self._ready:
            if not self._frames:
                self._ready.wait(timeout_seconds)
            for at, name in enumerate(self._order):
                if name in self._frames:
                    # Whoever was served goes to the end of the line.
                    self._order.append(self._order.pop(at))
                    return self._frames.pop(name)
            return None
