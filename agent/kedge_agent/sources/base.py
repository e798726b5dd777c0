"""The source port, and the thread that keeps a source going."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import Protocol

from kedge_agent.frames import Captured, LatestFrame
from kedge_shared.errors import KedgeError
from kedge_shared.vision import Frame

_BACKOFF_SECONDS = (0.2, 10.0)


class Source(Protocol):
    """Something that gives images; opened anew after an error."""

    def images(self) -> Iterator[Frame | None]:
        """Yields images; ``None`` stands for one that could not be read."""
        ...


class SourceThread(threading.Thread):
    """Reads a source at its pace into the slot; reopens it when it fails, never gives up.

    Attributes:
        unreadable: Frames that could not be read; they get no sequence number.
        reopened: Times that the source was opened again after an error.
        finished: The source came to its end and does not loop.
    """

    def __init__(self, make: Callable[[], Source], slot: LatestFrame, fps: float) -> None:
        super().__init__(name="source", daemon=True)
        self._make, self._slot, self._period = make, slot, 1 / fps
        self._halt = threading.Event()
        self.unreadable = 0
        self.reopened = 0
        self.finished = False
        self._seq = 0
        self.opens = threading.Event()

    def stop(self) -> None:
        """Ends the thread soon."""
        self._halt.set()

    def run(self) -> None:
        """Reads until stopped."""
        self.opens.wait()
        wait = _BACKOFF_SECONDS[0]
        while not self._halt.is_set():
            try:
                before = self._seq
                self._read(self._make())
                self.finished = True
                return
            # Boundary: camera drivers and decoders fail in their own ways; the loop outlives them.
            except (KedgeError, OSError, RuntimeError, ValueError):
                self.reopened += 1
                wait = (
                    _BACKOFF_SECONDS[0]
                    if self._seq > before
                    else min(wait * 2, _BACKOFF_SECONDS[1])
                )
                self._halt.wait(wait)

    def _read(self, source: Source) -> None:
        due = time.monotonic()
        for image in source.images():
            now = time.monotonic()
            # A camera does not wait for us; after a stall it goes on, it does not catch up.
            due = max(due + self._period, now)
            if self._halt.wait(max(0.0, due - now)):
                return
            if image is None or image.ndim != 3 or not image.size:
                self.unreadable += 1
                continue
            self._slot.put(Captured(self._seq, image, time.monotonic()))
            self._seq += 1
