"""What sources, sinks and the runner are told; light, so that the updater can import it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from msgspec import Meta


@dataclass(frozen=True, kw_only=True)
class SourceSpec:
    """Where frames come from.

    Attributes:
        kind: ``video`` reads a file, ``folder`` its images in order.
        path: File or folder.
        fps: Frames a second.
        loop: Begin again at the end.
    """

    kind: Literal["video", "folder"]
    path: Path
    fps: Annotated[float, Meta(gt=0, le=240)] = 12.0
    loop: bool = True


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


@dataclass(frozen=True, kw_only=True)
class RunnerSettings:
    """What the runner is told at its start; no address, no token.

    Attributes:
        state_dir: Where ``slots.json`` lies.
        blobs: Blob store.
        socket: Path of its socket.
        source: Where frames come from.
        sink: Where detections go.
        threads: Threads an engine may use.
    """

    state_dir: Path
    blobs: Path
    socket: Path
    source: SourceSpec
    sink: SinkSpec
    threads: int = 1
