"""Golden references: what the builder's engine said on the golden frames, as a file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from kedge_shared import wire
from kedge_shared.detections import COLUMNS, Array, empty
from kedge_shared.errors import InputError
from kedge_shared.policy import GoldenFrame

REFERENCES_LIMIT_BYTES = 8 * 1024 * 1024


@dataclass(frozen=True, kw_only=True)
class References:
    """Detections per golden frame, of the float model and of the built engine.

    Attributes:
        frames: SHA-256 of the frame → rows x1 y1 x2 y2 confidence class.
    """

    frames: dict[str, list[list[float]]]


def write_references(found: Mapping[str, Array]) -> bytes:
    """Encodes detections by frame hash; coordinates to 0.01 pixel, confidence to 0.0001."""
    rows = {
        key: [[*(round(float(v), 2) for v in row[:4]), round(float(row[4]), 4), int(row[5])]
              for row in value]
        for key, value in found.items()
    }  # fmt: skip
    return wire.encode(References(frames=rows))


def read_references(data: bytes | memoryview) -> dict[str, Array]:
    """Decodes :func:`write_references`.

    Raises:
        InputError: Malformed.
    """
    decoded = wire.decode(data, References, "golden references")
    return {key: _rows(value) for key, value in decoded.frames.items()}


def label_array(frame: GoldenFrame, classes: tuple[str, ...]) -> Array:
    """Returns a golden frame's labels as detections (n, 6) with confidence 1.

    A label whose class the engine does not have gets the index -1: it can only be missed.
    """
    index = {name: at for at, name in enumerate(classes)}
    rows = [[b.x1, b.y1, b.x2, b.y2, 1.0, index.get(b.label, -1)] for b in frame.labels]
    return np.asarray(rows, dtype=np.float32).reshape(-1, COLUMNS)


def _rows(rows: list[list[float]]) -> Array:
    if any(len(row) != COLUMNS for row in rows):
        raise InputError("golden references cannot be read: a row has not six numbers")
    return np.asarray(rows, dtype=np.float32) if rows else empty()
