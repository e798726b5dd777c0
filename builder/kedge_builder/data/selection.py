"""Which images stand for the rest: greedy facility location with a quota for classes. Pure.

Facility location takes the images that make the sum of everyone's likeness to the nearest one
taken as large as can be. The function is submodular, so the greedy choice reaches at least 1 - 1/e
of the best there is (Nemhauser, Wolsey and Fisher, "An analysis of approximations for maximizing
submodular set functions", 1978; for choosing training data: Wei, Iyer and Bilmes, "Submodularity
in Data Subset Selection and Active Learning", ICML 2015). k-center (Gonzalez 1985) was left: it
runs after outliers, and a calibrator that clips by percentile should see what is common.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from kedge_builder.data.features import Description

Matrix: TypeAlias = npt.NDArray[np.float64]
#: Relative areas below which an object is small and above which it is large: COCO's 32² and 96²
#: pixels in its images of 640 x 480.
SMALL, LARGE = 32**2 / (640 * 480), 96**2 / (640 * 480)
#: Images wanted of a class at the most, and the share of all that quotas may take together.
_QUOTA, _QUOTA_SHARE = 4, 0.25


def size_shares(image: Description) -> npt.NDArray[np.float64]:
    """Returns the shares of small, medium and large objects, (3,); zeros without objects."""
    if not len(image.areas):
        return np.zeros(3)
    small, large = (image.areas < SMALL).mean(), (image.areas > LARGE).mean()
    return np.array([small, 1 - small - large, large])


def embed(images: Sequence[Description], classes: int) -> Matrix:
    """Returns the images as points in which every aspect has the same say, (n, d).

    Light, sizes, classes and features are each standardized and then scaled to the same total
    variance: 256 features shall not outvote two numbers of light.
    """
    light = np.array([[each.brightness, each.contrast] for each in images])
    sizes = np.array([size_shares(each) for each in images])
    present = np.array([[at in (each.classes or ()) for at in range(classes)] for each in images])
    features = np.stack([each.features for each in images]).astype(np.float64)
    return np.concatenate([_weighed(each) for each in (light, sizes, present, features)], axis=1)


def _weighed(values: npt.NDArray[np.generic]) -> Matrix:
    block = np.asarray(values, dtype=np.float64)
    spread = block.std(axis=0)
    moving = spread > 1e-9
    if not moving.any():
        return np.zeros((len(block), 0))
    block = (block[:, moving] - block[:, moving].mean(axis=0)) / spread[moving]
    return np.asarray(block / np.sqrt(moving.sum()))


def distances(one: Matrix, other: Matrix) -> Matrix:
    """Returns Euclidean distances, (n, m)."""
    squares = (one**2).sum(1)[:, None] + (other**2).sum(1)[None, :] - 2 * one @ other.T
    return np.asarray(np.sqrt(np.maximum(squares, 0.0)))


def coverage(points: Matrix, chosen: Sequence[int]) -> float:
    """Returns how far an image is from the nearest one chosen, on average; lower is better."""
    return float(distances(points, points[list(chosen)]).min(axis=1).mean())


def random_coverage(points: Matrix, count: int, *, seed: int, draws: int = 20) -> float:
    """Returns the average coverage of sets drawn by chance, as a yardstick."""
    rng = np.random.default_rng(seed)
    drawn = [rng.choice(len(points), count, replace=False) for _ in range(draws)]
    return float(np.mean([coverage(points, list(each)) for each in drawn]))


def choose(points: Matrix, classes: Sequence[frozenset[int]], count: int) -> list[int]:
    """Returns the indices of ``count`` images that stand for all of them, in order of choice.

    Args:
        points: (n, d) of :func:`embed`.
        classes: Classes present in each image.
        count: How many; not more than n.
    """
    away = distances(points, points)
    likeness = away.max(initial=0.0) - away
    best = np.zeros(len(points))
    open_ = np.ones(len(points), dtype=bool)
    chosen: list[int] = []

    def take(among: npt.NDArray[np.bool_]) -> None:
        gain = np.maximum(likeness, best[:, None]).sum(axis=0)
        pick = int(np.where(among, gain, -np.inf).argmax())
        chosen.append(pick)
        open_[pick] = False
        np.maximum(best, likeness[:, pick], out=best)

    for of_class, wanted in _quotas(classes, count):
        while sum(of_class[each] for each in chosen) < wanted and len(chosen) < count:
            take(of_class & open_)
    while len(chosen) < count:
        take(open_)
    return chosen


def _quotas(
    classes: Sequence[frozenset[int]], count: int
) -> list[tuple[npt.NDArray[np.bool_], int]]:
    """Returns (which images hold the class, how many are wanted), the rarest class first."""
    known = sorted(frozenset().union(*classes))
    each = min(_QUOTA, max(1, int(count * _QUOTA_SHARE / max(1, len(known)))))
    masks = [np.array([name in present for present in classes]) for name in known]
    masks.sort(key=lambda mask: int(mask.sum()))
    return [(mask, min(each, int(mask.sum()))) for mask in masks]
