"""Engines without a runtime, and slots to name them by."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field

import numpy as np

from kedge_agent.detector import Detections
from kedge_agent.errors import EngineError
from kedge_agent.local_protocol import Slot
from kedge_shared.ids import sha256_hex

FRAME = np.zeros((8, 8, 3), dtype=np.uint8)


def slot_of(name: str) -> Slot:
    return Slot(
        release=name, manifest=sha256_hex(f"m{name}".encode()),
        policy=sha256_hex(b"p"), engine=sha256_hex(f"e{name}".encode()),
    )  # fmt: skip


@dataclass
class SimDetector:
    """Answers every frame with its own name; notices misuse.

    Attributes:
        name: What it is.
        seconds: Time for a frame.
        fails: Fails on every frame.
        nan: Gives NaN on every frame.
    """

    name: str
    seconds: float = 0.0
    fails: bool = False
    nan: bool = False
    closed: int = 0
    misused: list[str] = field(default_factory=list)
    _busy: threading.Lock = field(default_factory=threading.Lock)

    @property
    def slot(self) -> Slot:
        return slot_of(self.name)

    def detect(self, frame: np.ndarray) -> Detections:
        if self.closed:
            self.misused.append("used after it was closed")
        if not self._busy.acquire(blocking=False):
            self.misused.append("two callers at once")
            raise EngineError("two callers")
        try:
            if self.seconds:
                time.sleep(self.seconds)
            if self.fails:
                raise EngineError(f"{self.name} fails")
            return Detections(np.zeros((0, 6), np.float32), (self.name,), 1.0, finite=not self.nan)
        finally:
            self._busy.release()

    def close(self) -> None:
        if self._busy.locked():
            self.misused.append("closed while it ran")
        self.closed += 1
