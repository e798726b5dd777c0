"""Sources without a camera: they give, fail and hang as the test says."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from kedge_agent.sources.base import Images
from tests.waiting import PATIENCE

PICTURE = np.zeros((16, 16, 3), dtype=np.uint8)


@dataclass
class Clock:
    """Monotonic seconds that pass when the test says."""

    now: float = 1000.0

    def __call__(self) -> float:
        return self.now


@dataclass
class SimSource:
    """One life of a source.

    Attributes:
        gives: What it yields: an array, ``None`` (unreadable), or an exception to raise.
        hangs: After that it blocks until this is set.
    """

    gives: Sequence[Any] = ()
    hangs: threading.Event | None = None
    fps: float | None = None
    closed: threading.Event = field(default_factory=threading.Event)

    def images(self) -> Images:
        try:
            for each in self.gives:
                if isinstance(each, Exception):
                    raise each
                yield each
            if self.hangs is not None:
                self.hangs.wait(PATIENCE)
                yield PICTURE
        finally:
            self.closed.set()


@dataclass
class SimCapture:
    """OpenCV's capture: so many frames, then none."""

    frames: int
    opened: bool = True
    broken: frozenset[int] = frozenset()
    at: int = -1
    decoded: int = 0
    released: bool = False

    def isOpened(self) -> bool:
        return self.opened

    def grab(self) -> bool:
        self.at += 1
        return self.at < self.frames

    def retrieve(self) -> tuple[bool, Any]:
        self.decoded += 1
        return (False, None) if self.at in self.broken else (True, PICTURE)

    def release(self) -> None:
        self.released = True
