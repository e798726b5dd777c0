"""From a detector's last convolutions to the output that its graph would have had, in numpy.

NPUs take a detector up to there: behind it boxes in pixels and scores in 0..1 meet, which cannot
share one scale (docs/builder.md). As Ultralytics' ``Detect`` head decodes YOLOv8, 11 and 26.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from kedge_shared.detections import Array
from kedge_shared.manifest import InputSpec, OutputSpec
from kedge_shared.vision import MAX_DETECTIONS

#: Anchors whose best class is below it are given back as zeros: mAP reads no weaker ones, and
#: exponentials of 8,400 anchors would cost a board what the NPU had saved.
FLOOR = 0.001
_Rows = npt.NDArray[np.intp]


def join(outputs: Sequence[Array], given: InputSpec, read: OutputSpec) -> Array:
    """Decodes what the last convolutions say.

    Args:
        outputs: Boxes and class logits in turn, finest grid first: (1, 4 * bins, h, w) and
            (1, classes, h, w).
        given: Input of the engine, pixels.
        read: Head and classes.

    Returns:
        As ``read.head`` says: (1, 4 + classes, anchors) or (1, n, 6), n ≤ 300. Of anchors below
        :data:`FLOOR` only zeros, unless the head is end to end.

    Raises:
        ValueError: The outputs are none of such a detector.
    """
    boxes, logits = outputs[0::2], outputs[1::2]
    _check(boxes, logits, len(read.classes))
    scores = np.concatenate([each[0].reshape(len(read.classes), -1) for each in logits], axis=1)
    best = scores.max(axis=0)
    if read.head == "yolo-end2end":
        return _strongest(boxes, scores, best, given)
    picked = np.flatnonzero(best > np.log(FLOOR / (1 - FLOOR)))
    raw = np.zeros((1, 4 + len(scores), len(best)), dtype=np.float32)
    low, high = _corners(boxes, picked, given)
    raw[0, :2, picked] = ((low + high) / 2).T
    raw[0, 2:4, picked] = (high - low).T
    raw[0, 4:, picked] = _sigmoid(scores[:, picked]).T
    return raw


def _check(boxes: Sequence[Array], logits: Sequence[Array], classes: int) -> None:
    shapes = [each.shape for each in (*boxes, *logits)]
    right = len(boxes) == len(logits) > 0 and all(
        len(box.shape) == len(said.shape) == 4
        and (box.shape[0], said.shape[:2]) == (1, (1, classes))
        and box.shape[1] % 4 == 0
        and box.shape[2:] == said.shape[2:]
        for box, said in zip(boxes, logits, strict=True)
    )
    if not right:
        raise ValueError(f"outputs {shapes} are not boxes and {classes} classes in turn")


def _strongest(boxes: Sequence[Array], scores: Array, best: Array, given: InputSpec) -> Array:
    """Returns (1, n, 6): the strongest classes of the strongest anchors, as YOLO26 picks them."""
    anchors = np.argsort(-best, kind="stable")[:MAX_DETECTIONS]
    flat = scores[:, anchors].T.reshape(-1)
    order = np.argsort(-flat, kind="stable")[: len(anchors)]
    at, labels = order // len(scores), order % len(scores)
    low, high = _corners(boxes, anchors[at], given)
    found = np.concatenate([low, high, _sigmoid(flat[order])[None], labels[None]])
    return np.ascontiguousarray(found.T[None], dtype=np.float32)


def _corners(boxes: Sequence[Array], picked: _Rows, given: InputSpec) -> tuple[Array, Array]:
    """Returns the upper left and lower right corners of anchors, each (2, n), input pixels."""
    sides = np.concatenate([each[0].reshape(each.shape[1], -1) for each in boxes], axis=1)
    distances = _distances(sides[:, picked])
    centres, strides = _grid([each.shape[2:] for each in boxes], given)
    centre, stride = centres[:, picked], strides[picked]
    return (centre - distances[:2]) * stride, (centre + distances[2:]) * stride


def _distances(sides: Array) -> Array:
    """Returns (4, n): a distribution's mean where a side has several bins, or what it says."""
    bins = len(sides) // 4
    if bins == 1:
        return sides
    spread = sides.reshape(4, bins, -1)
    weights = np.exp(spread - spread.max(axis=1, keepdims=True))
    weights /= weights.sum(axis=1, keepdims=True)
    return np.asarray(np.arange(bins, dtype=np.float32) @ weights, dtype=np.float32)


def _grid(shapes: Sequence[tuple[int, ...]], given: InputSpec) -> tuple[Array, Array]:
    """Returns the anchors' centres (2, n) in steps of their grid, and those steps (n,), pixels."""
    centres, strides = [], []
    for height, width in shapes:
        rows, columns = np.mgrid[:height, :width].astype(np.float32) + np.float32(0.5)
        centres.append(np.stack([columns.reshape(-1), rows.reshape(-1)]))
        strides.append(np.full(height * width, given.height / height, dtype=np.float32))
    return np.concatenate(centres, axis=1), np.concatenate(strides)


def _sigmoid(logits: Array) -> Array:
    return np.asarray(1 / (1 + np.exp(-logits)), dtype=np.float32)


def to_bytes(batch: Array, given: InputSpec) -> npt.NDArray[np.uint8]:
    """Returns the pixels that an input was made of: NPUs are fed bytes.

    Args:
        batch: (1, 3, h, w) float32, pixels times ``given.scale``.
        given: Input of the engine.
    """
    return np.asarray(np.rint(batch * np.float32(1 / given.scale)), dtype=np.uint8)
