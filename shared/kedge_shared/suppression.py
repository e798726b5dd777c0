"""Non-maximum suppression in numpy: what remains of overlapping boxes.

OpenCV has it with classes only from 4.7 on, and boards carry older ones (JetPack 5: 4.5.4).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from kedge_shared.detections import Array

_Rows = npt.NDArray[np.intp]
_Boxes = npt.NDArray[np.float64]
#: Boxes compared at once: the square of it is what one step's memory and time go by.
_BLOCK = 256


def suppress(boxes: Array, scores: Array, labels: Array, iou: float, limit: int) -> _Rows:
    """Drops each box that overlaps a stronger one of its class; equal scores: the earlier stays.

    Args:
        boxes: (n, 4) as x1 y1 x2 y2.
        scores: (n,).
        labels: (n,) class indices.
        iou: Overlap above which the weaker box is dropped.
        limit: Boxes wanted at the most.

    Returns:
        Rows that stay, strongest first.
    """
    order = np.argsort(-scores, kind="stable")
    apart = _apart(boxes[order], labels[order])
    kept = np.zeros(0, dtype=np.intp)
    for start in range(0, len(order), _BLOCK):
        block = np.arange(start, min(start + _BLOCK, len(order)))
        if kept.size:
            block = block[~_overlaps(apart, block, kept, iou).any(axis=1)]
        kept = np.concatenate([kept, _strongest(apart, block, iou)])
        if kept.size >= limit:
            break
    return order[kept[:limit]]


def _apart(boxes: Array, labels: Array) -> _Boxes:
    """Returns (4, n) with each class on ground of its own, where it overlaps no other.

    In double precision: in single, class 79 at 640 px would move its boxes by hundredths.
    """
    wide = boxes.astype(np.float64)
    ground = wide.max(initial=0) - wide.min(initial=0) + 1
    return np.ascontiguousarray((wide + labels[:, None] * ground).T)


def _strongest(boxes: _Boxes, block: _Rows, iou: float) -> _Rows:
    weaker = np.triu(_overlaps(boxes, block, block, iou), 1)
    stays = np.ones(len(block), dtype=np.bool_)
    for at in np.flatnonzero(weaker.any(axis=1)):
        if stays[at]:
            stays &= ~weaker[at]
    return block[stays]


def _overlaps(boxes: _Boxes, left: _Rows, right: _Rows, iou: float) -> npt.NDArray[np.bool_]:
    """Says which of ``left`` overlap which of ``right``, (left, right)."""
    a, b = boxes[:, left, None], boxes[:, None, right]
    width = np.minimum(a[2], b[2]) - np.maximum(a[0], b[0])
    height = np.minimum(a[3], b[3]) - np.maximum(a[1], b[1])
    common = np.maximum(width, 0) * np.maximum(height, 0)
    areas = (boxes[2] - boxes[0]) * (boxes[3] - boxes[1])
    return np.asarray(common > iou * (areas[left, None] + areas[right] - common))
