"""How far an engine's raw output is from float's: a number with far less noise than mAP.

64 images leave mAP uncertain by points; the same images see a distortion of a thousandth, because
every anchor that matters adds to it. It orders candidates that mAP cannot tell apart and says
which block loses most; the verdict on a build stays with mAP.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from kedge_shared.detections import COLUMNS, Array, iou_matrix, match

#: Anchors under it say nothing that a detection would be made of.
_LEAST_SCORE = 0.05
_END_TO_END_COLUMNS = COLUMNS


def distortion(reference: Sequence[Array], other: Sequence[Array]) -> float:
    """Returns the mean over anchors, weighted by float's score, of |Δ score| + 1 - IoU.

    Args:
        reference: Float's raw outputs, each (1, 4 + classes, anchors) with boxes cx cy w h, or
            (1, n, 6) of an end-to-end head.
        other: The engine's on the same frames.

    Returns:
        0 (equal) … 2; 2 for an output that is not finite.
    """
    lost = weight = 0.0
    for left, right in zip(reference, other, strict=True):
        if not np.isfinite(right).all():
            return 2.0
        each, of = _one(left[0], right[0])
        lost, weight = lost + each, weight + of
    return lost / weight if weight else 0.0


def _one(left: Array, right: Array) -> tuple[float, float]:
    if left.shape[-1] == _END_TO_END_COLUMNS:
        return _one_end_to_end(left, right)
    scores = left[4:].max(axis=0)
    used = np.flatnonzero(scores >= _LEAST_SCORE)
    left, right, weights = left[:, used], right[:, used], scores[used]
    moved = np.abs(left[4:] - right[4:]).max(axis=0, initial=0)
    lost = weights * (moved + 1 - _overlap(left[:4], right[:4]))
    return float(lost.sum()), float(weights.sum())


def _one_end_to_end(left: Array, right: Array) -> tuple[float, float]:
    """Such a head sorts by score, and a small change swaps rows: objects are matched instead."""
    left = left[left[:, 4] >= _LEAST_SCORE]
    lost = dict(enumerate(2 * left[:, 4]))
    for row, column in match(left, right, 0.1):
        moved = abs(left[row, 4] - right[column, 4])
        overlap = iou_matrix(left[row : row + 1], right[column : column + 1])[0, 0]
        lost[row] = left[row, 4] * (moved + 1 - overlap)
    return float(sum(lost.values())), float(left[:, 4].sum())


def _overlap(left: Array, right: Array) -> Array:
    """Returns the IoU of boxes (4, n) cx cy w h with their counterparts."""
    low = np.maximum(left[:2] - left[2:] / 2, right[:2] - right[2:] / 2)
    high = np.minimum(left[:2] + left[2:] / 2, right[:2] + right[2:] / 2)
    inter = np.clip(high - low, 0, None).prod(axis=0)
    union = left[2:].prod(axis=0) + right[2:].clip(0).prod(axis=0) - inter
    return np.asarray(inter / np.maximum(union, 1e-9), dtype=np.float32)
