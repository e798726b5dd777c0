"""Frames from a video file or a folder of images, by OpenCV."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from kedge_agent.errors import SourceError
from kedge_agent.sources.base import Images

_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp"})
_FOLDER_FPS = 12.0
#: Containers lie; what is outside is no frame rate.
_SANE_FPS = (1.0, 240.0)


class Video:
    """A video file.

    Args:
        path: File.
        fps: Frames a second; ``None`` takes the file's own rate.
        loop: Begin again at the end.

    Raises:
        SourceError: It cannot be opened.
    """

    def __init__(self, path: Path, fps: float | None = None, *, loop: bool = True) -> None:
        self._path, self._loop = path, loop
        self.fps: float | None = fps or _own_rate(path)

    def images(self) -> Images:
        """Yields its frames, from the start again if it loops.

        Raises:
            SourceError: Not a single frame can be read.
        """
        import cv2

        while True:
            capture = cv2.VideoCapture(str(self._path))
            try:
                first, image = capture.read()
                if not first:
                    raise SourceError(f"video {self._path} cannot be read")
                while first:
                    yield np.asarray(image, dtype=np.uint8)
                    first, image = capture.read()
            finally:
                capture.release()
            if not self._loop:
                return


def _own_rate(path: Path) -> float:
    import cv2

    capture = cv2.VideoCapture(str(path))
    try:
        rate = float(capture.get(cv2.CAP_PROP_FPS))
    finally:
        capture.release()
    return rate if _SANE_FPS[0] <= rate <= _SANE_FPS[1] else _FOLDER_FPS


class Folder:
    """A folder of images, in the order of their names.

    Args:
        path: Folder.
        fps: Images a second.
        loop: Begin again at the end.
    """

    def __init__(self, path: Path, fps: float | None = None, *, loop: bool = True) -> None:
        self._path, self._loop = path, loop
        self.fps: float | None = fps or _FOLDER_FPS

    def images(self) -> Images:
        """Yields its images, from the start again if it loops.

        Raises:
            SourceError: The folder holds no image.
        """
        import cv2

        while True:
            paths = sorted(p for p in self._path.glob("*") if p.suffix.lower() in _SUFFIXES)
            if not paths:
                raise SourceError(f"folder {self._path} holds no image")
            for path in paths:
                image = cv2.imread(str(path), cv2.IMREAD_COLOR)
                yield None if image is None else np.asarray(image, dtype=np.uint8)
            if not self._loop:
                return
