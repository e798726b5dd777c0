"""A frame and the slot of size one between camera and engine."""

from __future__ import annotations

import threading
from dataclasses import dataclass

from kedge_shared.vision import Frame


@dataclass(frozen=True)
class Captured:
    """One frame as it came from the source.

    Attributes:
        seq: Counts from zero without gaps, so that a lost frame shows at the sink.
        image: (h, w, 3) BGR uint8.
        at: Monotonic seconds.
    """

    seq: int
    image: Frame
    at: float


class LatestFrame:
    """Holds the newest frame. What is overwritten before it was taken counts as dropped."""

    def __init__(self) -> None:
        self._ready = threading.Condition()
        self._frame: Captured | None = None
        self._dropped = 0

    @property
    def dropped(self) -> int:
        """Frames overwritten so far."""
        return self._dropped

    def put(self, frame: Captured) -> None:
        """Offers a frame."""
        with self._ready:
            if self._frame is not None:
                self._dropped += 1
            self._frame = frame
            self._ready.notify()

    def take(self, timeout_seconds: float) -> Captured | None:
        """Waits for a frame; ``None`` when none came in time."""
        with self._ready:
            if self._frame is None:
                self._ready.wait(timeout_seconds)
            frame, self._frame = self._frame, None
            return frame
