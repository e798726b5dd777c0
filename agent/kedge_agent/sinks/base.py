"""The sink port."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import msgspec

from kedge_agent.detector import Detections
from kedge_agent.local_protocol import Slot
from kedge_shared.vision import Frame


@dataclass(frozen=True)
class Result:
    """What an engine said of one frame.

    Attributes:
        source: Name of the source.
        seq: Counts from zero without gaps, for each source.
        at: Unix seconds at which the engine had answered.
        image: (h, w, 3) BGR uint8, not to be drawn into; ``None`` for sinks that want none.
        found: Detections.
        slot: Engine that answered.
    """

    source: str
    seq: int
    at: float
    image: Frame | None
    found: Detections
    slot: Slot


class Sink(Protocol):
    """Takes results, in a thread of its own: it may be slow, block or fail."""

    def put(self, result: Result) -> None:
        """Takes one result.

        Raises:
            Exception: Whatever is wrong outside; it is counted, and the next result comes.
        """
        ...

    def close(self) -> None:
        """Flushes and lets go."""
        ...


_encoder = msgspec.json.Encoder()


def as_json(result: Result) -> bytes:
    """Returns a result as one JSON object: seq, source, time, release, engine, ms, objects."""
    found = result.found
    return _encoder.encode(
        {
            "seq": result.seq,
            "source": result.source,
            "t": result.at,
            "release": result.slot.release,
            "engine": result.slot.engine[:12],
            "ms": round(found.ms, 3),
            "objects": [
                {
                    "label": found.classes[int(row[5])],
                    "conf": round(float(row[4]), 3),
                    "box": [round(float(v), 1) for v in row[:4]],
                }
                for row in found.rows
            ],
        }
    )
