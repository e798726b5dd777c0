"""Frames as they come: a camera of this board, or a stream from another one, by OpenCV."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np

from kedge_agent.errors import SourceError
from kedge_agent.sources.base import Images

#: Over UDP a lost packet is a grey smear that no engine can tell from a scene.
_OVER_TCP = "rtsp_transport;tcp"
_OPTIONS = "OPENCV_FFMPEG_CAPTURE_OPTIONS"


class Capture(Protocol):
    """What OpenCV's ``VideoCapture`` offers, as far as it is used."""

    def isOpened(self) -> bool:
        """Says whether the device or stream was found."""
        ...

    def grab(self) -> bool:
        """Takes the next frame without decoding it."""
        ...

    def retrieve(self) -> tuple[bool, Any]:
        """Decodes the frame at hand."""
        ...

    def release(self) -> None:
        """Closes it."""
        ...


class Live:
    """A source that sets the pace itself.

    Every frame is taken, because what is left in a driver's queue makes the next ones old; what
    ``fps`` does not want is not decoded.

    Args:
        what: For people; holds no password.
        open_capture: Opens it.
        fps: Most frames a second that are wanted; ``None`` is all.
        clock: Monotonic seconds.
    """

    fps: float | None = None

    def __init__(
        self,
        what: str,
        open_capture: Callable[[], Capture],
        fps: float | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._what, self._open, self._clock = what, open_capture, clock
        self._period = 1 / fps if fps else 0.0

    def images(self) -> Images:
        """Yields frames as they come.

        Raises:
            SourceError: It cannot be opened, or the stream broke off.
        """
        capture = self._open()
        due = self._clock()
        try:
            if not capture.isOpened():
                raise SourceError(f"{self._what} cannot be opened")
            while capture.grab():
                now = self._clock()
                if now < due:
                    continue
                # From the due time on, not from now: else 30 fps thinned to 20 would be 15.
                due = max(due + self._period, now - self._period)
                decoded, image = capture.retrieve()
                yield np.asarray(image, dtype=np.uint8) if decoded and image is not None else None
            raise SourceError(f"{self._what} gives no frame")
        finally:
            capture.release()


def open_camera(index: int) -> Capture:
    """Opens a camera of this board, by its number."""
    import cv2

    capture = cv2.VideoCapture(index)
    # Where the driver offers it: one frame of queue, so that a frame is never older than that.
    capture.set(cv2.CAP_PROP_BUFFERSIZE, 1)
    return _as_capture(capture)


def open_stream(url: str, timeout_seconds: float) -> Capture:
    """Opens a stream; opening and each read end after ``timeout_seconds``."""
    import cv2

    os.environ.setdefault(_OPTIONS, _OVER_TCP)
    wait = int(timeout_seconds * 1000)
    options = [cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, wait, cv2.CAP_PROP_READ_TIMEOUT_MSEC, wait]
    return _as_capture(cv2.VideoCapture(url, cv2.CAP_FFMPEG, options))


def _as_capture(capture: Any) -> Capture:
    found: Capture = capture
    return found
