"""One life of a source: a thread that reads it until it ends, fails or is abandoned."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import closing

import numpy as np

from kedge_agent.errors import SourceError
from kedge_agent.sources.base import Opener
from kedge_shared.vision import Frame

#: A source that gives nothing else is broken: it is opened anew.
_MOST_UNREADABLE = 100
#: What is smaller is no picture of anything; resizing would leave nothing of it.
_LEAST_PIXELS = 8


class Reader(threading.Thread):
    """Reads a source at its pace. A thread cannot be killed: one that hangs is left behind.

    Attributes:
        calling_since: When it went into the source's own code, monotonic seconds; ``None`` while
            it waits for its pace, before it began and after its end.
        unreadable: Frames that were empty or corrupt; they get no sequence number.
        ended: It is over.
        why: Why it is over; empty where the source came to its end or reading was stopped.
    """

    def __init__(
        self,
        name: str,
        make: Opener,
        put: Callable[[Frame], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(name=f"source {name}", daemon=True)
        self._make, self._put, self._clock = make, put, clock
        self._halt = threading.Event()
        self.calling_since: float | None = clock()
        self.unreadable = 0
        self.ended = False
        self.why = ""

    def abandon(self) -> None:
        """Ends it as soon as the source lets go; from now on it gives no frame."""
        self._halt.set()

    def run(self) -> None:
        """Reads until the end."""
        try:
            self._read()
        # Boundary: camera drivers, decoders and people's iterables fail in their own ways.
        except Exception as error:  # noqa: BLE001
            self.why = " ".join(str(error).split())[:200] or type(error).__name__
        self.calling_since = None
        self.ended = True

    def _read(self) -> None:
        source = self._make()
        period = 1 / source.fps if source.fps else 0.0
        in_a_row, due = 0, self._clock()
        with closing(source.images()) as images:
            for image in images:
                self.calling_since = None
                now = self._clock()
                # A camera does not wait for us; after a stall it goes on, it does not catch up.
                due = max(due + period, now)
                if self._halt.wait(max(0.0, due - now)):
                    return
                in_a_row = 0 if self._took(image) else in_a_row + 1
                if in_a_row >= _MOST_UNREADABLE:
                    raise SourceError(f"{in_a_row} unreadable frames in a row")
                self.calling_since = self._clock()

    def _took(self, image: Frame | None) -> bool:
        if image is None or not is_picture(image):
            self.unreadable += 1
            return False
        self._put(image)
        return True


def is_picture(image: Frame) -> bool:
    """Says whether an array is a frame: (h, w, 3) uint8, neither side too small to resize."""
    return (
        isinstance(image, np.ndarray)
        and image.dtype == np.uint8
        and image.ndim == 3
        and image.shape[2] == 3
        and min(image.shape[:2]) >= _LEAST_PIXELS
    )
