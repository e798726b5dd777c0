"""Detections and how two sets of them compare: the arithmetic behind every verdict on accuracy.

Pure numpy. A set of detections is a float32 array (n, 6): x1 y1 x2 y2 in pixels of the frame,
confidence 0..1, class index.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

Array: TypeAlias = npt.NDArray[np.float32]
COLUMNS = 6
LABEL_IOU = 0.5


def empty() -> Array:
    """Returns the set without detections."""
    return np.zeros((0, COLUMNS), dtype=np.float32)


def iou_matrix(left: Array, right: Array) -> Array:
    """Returns the overlap (intersection over union) of every box of ``left`` with ``right``.

    Args:
        left: (n, ≥4) boxes x1 y1 x2 y2.
        right: (m, ≥4) boxes.

    Returns:
        (n, m), 0..1; empty boxes overlap nothing.
    """
    low = np.maximum(left[:, None, :2], right[None, :, :2])
    high = np.minimum(left[:, None, 2:4], right[None, :, 2:4])
    inter = np.prod(np.clip(high - low, 0, None), axis=2)
    area_left = np.prod(np.clip(left[:, 2:4] - left[:, :2], 0, None), axis=1)
    area_right = np.prod(np.clip(right[:, 2:4] - right[:, :2], 0, None), axis=1)
    union = area_left[:, None] + area_right[None, :] - inter
    return np.asarray(np.where(union > 0, inter / np.maximum(union, 1e-9), 0), dtype=np.float32)


def match(left: Array, right: Array, iou: float) -> list[tuple[int, int]]:
    """Pairs boxes of equal class, best overlap first, each box once.

    Args:
        left: (n, 6).
        right: (m, 6).
        iou: Least overlap of a pair.

    Returns:
        Pairs of row numbers (left, right).
    """
    if not len(left) or not len(right):
        return []
    overlap = iou_matrix(left, right)
    overlap[left[:, 5][:, None] != right[:, 5][None, :]] = 0
    rows, columns = np.nonzero(overlap >= max(iou, 1e-9))
    order = np.argsort(-overlap[rows, columns], kind="stable")
    pairs: list[tuple[int, int]] = []
    used_left: set[int] = set()
    used_right: set[int] = set()
    for at in order:
        row, column = int(rows[at]), int(columns[at])
        if row not in used_left and column not in used_right:
            used_left.add(row)
            used_right.add(column)
            pairs.append((row, column))
    return pairs


@dataclass(frozen=True)
class Score:
    """Counts of a comparison; add them over frames, then read shares.

    Attributes:
        hits: Objects on both sides.
        missed: Objects only on the reference's side.
        extra: Objects only on the other side.
    """

    hits: int = 0
    missed: int = 0
    extra: int = 0

    def __add__(self, other: Score) -> Score:
        return Score(self.hits + other.hits, self.missed + other.missed, self.extra + other.extra)

    @property
    def recall(self) -> float | None:
        """Share of the reference's objects that were found; ``None`` if it has none."""
        total = self.hits + self.missed
        return self.hits / total if total else None

    @property
    def f1(self) -> float | None:
        """Harmonic mean of precision and recall; ``None`` if neither side has an object."""
        total = 2 * self.hits + self.missed + self.extra
        return 2 * self.hits / total if total else None


def compare(reference: Array, other: Array, *, iou: float, confidence: float = 1.0) -> Score:
    """Counts which of ``reference``'s objects ``other`` has too.

    Args:
        reference: (n, 6).
        other: (m, 6).
        iou: Least overlap of a pair.
        confidence: Largest difference of confidence of a pair.
    """
    pairs = match(reference, other, iou)
    close = sum(abs(reference[a, 4] - other[b, 4]) <= confidence + 1e-6 for a, b in pairs)
    return Score(int(close), len(reference) - int(close), len(other) - int(close))


def label_score(
    found: Sequence[Array], labels: Sequence[Array], *, confidence: float
) -> float | None:
    """Returns F1 over frames of detections against labels, at IoU 0.5.

    F1 at one working point, not mAP: a board has tens of golden frames, too few to trace a
    precision-recall curve per class, and an operator can recompute it by hand.

    Args:
        found: Per frame (n, 6).
        labels: Per frame (m, 6); their confidence is not read.
        confidence: Detections below it do not count.

    Returns:
        0..1, or ``None`` if there is neither a label nor a detection.
    """
    total = Score()
    for each, truth in zip(found, labels, strict=True):
        total += compare(truth, each[each[:, 4] >= confidence], iou=LABEL_IOU)
    return total.f1
