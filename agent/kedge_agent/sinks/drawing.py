"""Detections drawn into their frame."""

from __future__ import annotations

import numpy as np

from kedge_agent.errors import EngineError
from kedge_agent.sinks.base import Result

_JPEG_QUALITY = 85
#: Far apart in hue, BGR; a class keeps its colour while the order of the classes stays.
_COLOURS = (
    (60, 76, 231), (113, 204, 46), (219, 152, 52), (18, 156, 243), (182, 89, 155), (156, 188, 26),
)  # fmt: skip


def as_jpeg(result: Result) -> bytes:
    """Returns the annotated frame as JPEG.

    Raises:
        EngineError: There is no frame, or it cannot be encoded.
    """
    import cv2

    if result.image is None:
        raise EngineError("a result without its frame cannot be drawn")
    canvas = np.ascontiguousarray(result.image).copy()
    for row in result.found.rows:
        index = int(row[5])
        colour = _COLOURS[index % len(_COLOURS)]
        left, top, right, bottom = (round(float(each)) for each in row[:4])
        cv2.rectangle(canvas, (left, top), (right, bottom), colour, 2)
        text = f"{result.found.classes[index]} {float(row[4]):.2f}"
        cv2.putText(
            canvas, text, (left, max(12, top - 4)), cv2.FONT_HERSHEY_SIMPLEX, 0.45, colour, 1
        )
    encoded, body = cv2.imencode(".jpg", canvas, [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY])
    if not encoded:
        raise EngineError("the frame cannot be encoded as JPEG")
    return bytes(body.tobytes())
