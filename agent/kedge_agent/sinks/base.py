"""The sink port."""

from __future__ import annotations

from typing import Protocol

from kedge_agent.detector import Detections
from kedge_agent.frames import Captured
from kedge_agent.local_protocol import Slot


class Sink(Protocol):
    """Takes what the engine said of a frame."""

    def put(self, frame: Captured, found: Detections, slot: Slot) -> None:
        """Takes one frame; errors of the outside are counted, never raised."""
        ...

    def close(self) -> None:
        """Flushes."""
        ...
