"""Which images are the same picture: by their bytes, or saved, resized or lit anew. Pure.

A perceptual hash (DCT, 256 bits: Zauner, "Implementation and Benchmarking of Perceptual Image
Hash Functions", 2010) nominates, a 32 x 32 picture confirms. The hash alone takes every two
frames of a fixed camera for the same picture, also when an object came into view. Measured on
COCO, DeepPCB and drawn scenes: JPEG at quality 50, half the size, noise and 10 % more light
change at most 34 bits and 0.6 of the picture's spread anywhere; different COCO images differ in
at least 90 bits; boards of one layout with other defects in 30 bits, but 1.2 of the spread.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from kedge_builder.data.features import Description

#: Bits that may differ, and the most that the pictures may differ anywhere, in their spread.
BITS, PICTURE = 36, 0.6
#: Rows compared at once: 256 against 5,000 images are 5 MB.
_ROWS = 256


@dataclass(frozen=True)
class Same:
    """Two images that are the same picture.

    Attributes:
        index: Of the first image.
        other: Of the image it is the same as.
        exact: By their bytes.
    """

    index: int
    other: int
    exact: bool


def same_pictures(images: Sequence[Description], others: Sequence[Description]) -> list[Same]:
    """Returns, for each of ``images`` that is also in ``others``, the first such pair."""
    found: dict[int, Same] = {}
    for at, other in _pairs(images, others):
        exact = images[at].sha256 == others[other].sha256
        if at not in found or (exact and not found[at].exact):
            found[at] = Same(at, other, exact)
    return list(found.values())


def repeated(images: Sequence[Description]) -> list[Same]:
    """Returns the images that repeat an earlier one that is kept; without them all are distinct."""
    earlier: dict[int, list[int]] = {}
    for at, other in _pairs(images, images):
        if other < at:
            earlier.setdefault(at, []).append(other)
    found: dict[int, Same] = {}
    for at in sorted(earlier):
        kept = next((other for other in earlier[at] if other not in found), None)
        if kept is not None:
            found[at] = Same(at, kept, images[at].sha256 == images[kept].sha256)
    return list(found.values())


def _pairs(
    images: Sequence[Description], others: Sequence[Description]
) -> Iterator[tuple[int, int]]:
    """Yields pairs that are the same picture, in order."""
    if not images or not others:
        return
    codes = np.stack([each.code for each in others])
    bits = codes.shape[1]
    for start in range(0, len(images), _ROWS):
        rows = np.stack([each.code for each in images[start : start + _ROWS]])
        near = np.argwhere((bits - rows @ codes.T) / 2 <= BITS)
        for row, other in near:
            at = start + int(row)
            if _confirmed(images[at], others[other]):
                yield at, int(other)


def _confirmed(one: Description, other: Description) -> bool:
    if one.sha256 == other.sha256:
        return True
    return bool(np.abs(one.picture - other.picture).max() <= PICTURE)
