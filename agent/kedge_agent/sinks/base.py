"""The sink port."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, Protocol

from msgspec import Meta

from kedge_agent.detector import Detections
from kedge_agent.frames import Captured
from kedge_agent.local_protocol import Slot


@dataclass(frozen=True, kw_only=True)
class SinkSpec:
    """Where detections go.

    Attributes:
        kind: ``jsonl`` writes a line a frame, ``null`` nothing.
        path: File, for ``jsonl``.
        max_mb: Size at which the file becomes ``PATH.1``, MiB; two of them are kept.
    """

    kind: Literal["jsonl", "null"] = "null"
    path: Path | None = None
    max_mb: Annotated[float, Meta(gt=0, le=10_000)] = 64.0


class Sink(Protocol):
    """Takes what the engine said of a frame."""

    def put(self, frame: Captured, found: Detections, slot: Slot) -> None:
        """Takes one frame; errors of the outside are counted, never raised."""
        ...

    def close(self) -> None:
        """Flushes."""
        ...
