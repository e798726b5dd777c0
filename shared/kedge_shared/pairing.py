"""What two engines say of one frame, object by object. Pure.

The board counts so in preflight, shadow and probation; the builder counts so to state how much a
release and the one before it may differ.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from kedge_shared.detections import Array, Score, empty, iou_matrix, match
from kedge_shared.manifest import OutputSpec, Shadow

Floats: TypeAlias = npt.NDArray[np.float32]
_IOU = 0.5
#: Above the reporting threshold by this, an object is one that must be seen again; those right at
#: the threshold flicker in any engine.
_SURE = 0.15
#: Class index of what the newer engine has no name for.
UNKNOWN = -1.0


class Said(Protocol):
    """What an engine says of one frame."""

    @property
    def rows(self) -> Array:
        """(n, 6): x1, y1, x2, y2, confidence, class index; pixels of the frame."""
        ...

    @property
    def classes(self) -> Sequence[str]:
        """Names that the class indexes stand for."""
        ...


@dataclass(frozen=True)
class Sightings:
    """Objects that either engine is sure of, on one frame.

    Attributes:
        boxes: (n, 6); the class is the newer engine's.
        old: Per object: the older engine sees it.
        new: The newer one does. At least one of the two is true.
    """

    boxes: Array
    old: tuple[bool, ...]
    new: tuple[bool, ...]

    def __len__(self) -> int:
        return len(self.old)

    @property
    def score(self) -> Score:
        """Counts, the older engine being the reference."""
        both = sum(a and b for a, b in zip(self.old, self.new, strict=True))
        return Score(both, sum(self.old) - both, sum(self.new) - both)


class Pairing:
    """Compares frame by frame, by class *name*.

    Args:
        new: Output of the newer engine: classes, threshold.
        terms: Of its manifest: renamed classes, classes that must hold.
    """

    def __init__(self, new: OutputSpec, terms: Shadow) -> None:
        self._sure = new.conf + _SURE
        self._index = {name: at for at, name in enumerate(new.classes)}
        self._renamed = terms.class_map
        named = terms.classes
        self._must = [self._index[each] for each in named if each in self._index] if named else None

    def __call__(self, old: Said, new: Said) -> Sightings:
        """Pairs what both say of one frame.

        A class that the older engine does not know is no gain, and one that need not hold is not
        looked at. An object that the newer engine calls something else is lost and not found
        again: its new name is no gain either.
        """
        known = self._classes(old.classes)
        before, after = _with_classes(old.rows, known), new.rows
        pairs = match(before, after, _IOU)
        alone = _rest(len(before), [a for a, _ in pairs])
        extra = self._gains(after[_rest(len(after), [b for _, b in pairs])], before[alone], known)
        both = np.array([_surer(before[a], after[b]) for a, b in pairs]).reshape(-1, 6)
        found = [(both, True, True), (before[alone], True, False), (extra, False, True)]
        kept = [(rows[self._counts(rows)], a, b) for rows, a, b in found]
        return Sightings(
            np.concatenate([empty(), *(rows.astype(np.float32) for rows, _, _ in kept)]),
            tuple(a for rows, a, _ in kept for _ in rows),
            tuple(b for rows, _, b in kept for _ in rows),
        )

    def _classes(self, names: Sequence[str]) -> Floats:
        index = [self._index.get(self._renamed.get(name, name), UNKNOWN) for name in names]
        return np.array(index, dtype=np.float32)

    def _gains(self, extra: Array, lost: Array, known: Floats) -> Array:
        fresh = extra[np.isin(extra[:, 5], known)]
        sure = lost[lost[:, 4] >= self._sure]
        if not len(fresh) or not len(sure):
            return fresh
        apart = iou_matrix(fresh, sure).max(axis=1) < _IOU
        return np.asarray(fresh[apart], dtype=np.float32)

    def _counts(self, rows: Array) -> npt.NDArray[np.bool_]:
        sure = rows[:, 4] >= self._sure
        return sure if self._must is None else sure & np.isin(rows[:, 5], self._must)


def _with_classes(rows: Array, index: Floats) -> Array:
    renamed: Array = rows.copy()
    if len(rows):
        renamed[:, 5] = index[rows[:, 5].astype(int)]
    return renamed


def _surer(left: Array, right: Array) -> Array:
    return left if left[4] >= right[4] else right


def _rest(count: int, taken: Sequence[int]) -> list[int]:
    return sorted(set(range(count)) - set(taken))
