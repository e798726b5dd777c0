"""Frames from a video file or a folder of images, by OpenCV."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from kedge_agent.sources.base import Source
from kedge_agent.specs import SourceSpec
from kedge_shared.errors import InputError
from kedge_shared.vision import Frame

_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp"})


def opener(spec: SourceSpec) -> Callable[[], Source]:
    """Returns what opens the source of ``spec``."""
    return (lambda: Video(spec)) if spec.kind == "video" else (lambda: Folder(spec))


class Video:
    """A video file.

    Raises:
        InputError: It cannot be opened.
    """

    def __init__(self, spec: SourceSpec) -> None:
        self._spec = spec

    def images(self) -> Iterator[Frame | None]:
        """Yields its frames, from the start again if it loops."""
        import cv2

        while True:
            capture = cv2.VideoCapture(str(self._spec.path))
            try:
                first, image = capture.read()
                if not first:
                    raise InputError(f"video {self._spec.path} cannot be read")
                while first:
                    yield np.asarray(image, dtype=np.uint8)
                    first, image = capture.read()
            finally:
                capture.release()
            if not self._spec.loop:
                return


class Folder:
    """A folder of images, in the order of their names."""

    def __init__(self, spec: SourceSpec) -> None:
        self._spec = spec

    def images(self) -> Iterator[Frame | None]:
        """Yields its images, from the start again if it loops.

        Raises:
            InputError: The folder holds no image.
        """
        import cv2

        while True:
            paths = sorted(p for p in self._spec.path.glob("*") if p.suffix.lower() in _SUFFIXES)
            if not paths:
                raise InputError(f"folder {self._spec.path} holds no image")
            for path in paths:
                image = cv2.imread(str(path), cv2.IMREAD_COLOR)
                yield None if image is None else np.asarray(image, dtype=np.uint8)
            if not self._spec.loop:
                return
