"""One JSON line a frame, bounded in size: a full disk costs lines, never the loop."""

from __future__ import annotations

import time
from pathlib import Path
from typing import IO

import msgspec

from kedge_agent.detector import Detections
from kedge_agent.frames import Captured
from kedge_agent.local_protocol import Slot
from kedge_agent.sinks.base import Sink
from kedge_agent.specs import SinkSpec
from kedge_shared.errors import InputError


class NullSink:
    """Takes everything and keeps nothing."""

    def put(self, frame: Captured, found: Detections, slot: Slot) -> None:
        """Takes one frame."""

    def close(self) -> None:
        """Nothing to do."""


class JsonLines:
    """Appends lines to a file and turns it over at its size.

    Attributes:
        lost: Lines that the disk did not take.
    """

    def __init__(self, path: Path, max_mb: float) -> None:
        self._path, self._limit = path, int(max_mb * 2**20)
        self._encoder = msgspec.json.Encoder()
        self._file: IO[bytes] | None = None
        self.lost = 0
        self._torn = False

    def put(self, frame: Captured, found: Detections, slot: Slot) -> None:
        """Writes one line: seq, time, release, engine, milliseconds, detections."""
        objects = [
            {
                "label": found.classes[int(row[5])],
                "conf": round(float(row[4]), 3),
                "box": [round(float(v), 1) for v in row[:4]],
            }
            for row in found.rows
        ]
        line = self._encoder.encode(
            {
                "seq": frame.seq,
                "t": time.time(),
                "release": slot.release,
                "engine": slot.engine[:12],
                "ms": round(found.ms, 3),
                "objects": objects,
            }
        )
        # Where the disk took half a line, the next one must not be glued to it.
        whole = (b"\n" if self._torn else b"") + line + b"\n"
        try:
            self._torn = self._open().write(whole) != len(whole)
        except OSError:
            self.lost += 1
            self._drop()
            return
        self.lost += self._torn

    def close(self) -> None:
        """Closes the file."""
        self._drop()

    def _open(self) -> IO[bytes]:
        if self._file is not None and self._file.tell() >= self._limit:
            self._drop()
            self._path.replace(self._path.with_name(self._path.name + ".1"))
        if self._file is None:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            # Unbuffered: what reached the sink is on record even if the process is killed.
            self._file = self._path.open("ab", buffering=0)
        return self._file

    def _drop(self) -> None:
        file, self._file = self._file, None
        if file is not None:
            file.close()


def make_sink(spec: SinkSpec) -> Sink:
    """Returns the sink of ``spec``.

    Raises:
        InputError: ``jsonl`` without a path.
    """
    if spec.kind == "null":
        return NullSink()
    if spec.path is None:
        raise InputError("sink 'jsonl' has no path", "set sink.path")
    return JsonLines(spec.path, spec.max_mb)
