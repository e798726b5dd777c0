"""Does the calibration set represent the evaluation data, and if not, in what? Pure.

An aspect differs if the difference is *significant* and *large*. Significance alone flags trifles
once there are many images; size alone flags chance while there are few. Each aspect is tested at
1 %, so that all five together raise a false alarm in at most 5 % of honest sets. The unit is the
image, and images must be independent: consecutive frames are not, and a Kolmogorov-Smirnov test
on them raises false alarms most of the time. So repeated pictures count once (the caller drops
them), and a difference must be large besides.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

import numpy as np
import numpy.typing as npt

from kedge_builder.data.features import Description
from kedge_builder.data.selection import distances
from kedge_shared.errors import InputError

Verdict = Literal["represents", "differs", "undecided"]
#: Fewer images cannot be judged, nor calibrate anything.
LEAST = 8
#: Of each of the five aspects.
ALPHA = 0.01
#: Kolmogorov-Smirnov distance: the share of images that lie on the wrong side of some value.
LARGE_KS = 0.25
#: Grey levels of 255 by which light must shift to matter, and doublings of an object's area.
LARGE_LIGHT, LARGE_DOUBLINGS = 12.0, 0.5
#: Energy coefficient, see :func:`energy`. Halves of COCO and of DeepPCB (60 draws each): at most
#: 0.002; COCO's animals, vehicles, kitchens, sports or rooms against the rest: 0.019 to 0.042; COCO
#: against DeepPCB: 0.10.
LARGE_ENERGY = 0.015
#: Share of images by which a class may be rarer or more frequent.
LARGE_SHARE = 0.25
#: A test that would overlook even this Kolmogorov-Smirnov distance has nothing to say.
_BLIND_KS = 0.4
_PERMUTATIONS, _LARGEST_SAMPLE = 400, 400
_NAMED = 5
_UNLABELLED = "not judged, the calibration images have no labels"

Values = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Aspect:
    """How calibration and evaluation compare in one respect.

    Attributes:
        statistic: Size of the difference; ``None`` if it could not be judged.
        limit: From which on it is large.
        p: Probability of one so large by chance.
        differs: Significant and large.
        sentence: What a person reads.
    """

    statistic: float | None
    limit: float
    p: float | None
    differs: bool
    sentence: str


@dataclass(frozen=True)
class Representation:
    """The verdict on a calibration set.

    Attributes:
        verdict: ``undecided`` if nothing differs, but the images are too few to see much.
        reasons: Sentences; of what differs, else of what was looked at.
        aspects: brightness, contrast, size, classes, features.
    """

    verdict: Verdict
    reasons: tuple[str, ...]
    aspects: Mapping[str, Aspect]


def represents(
    calibration: Sequence[Description],
    evaluation: Sequence[Description],
    classes: Sequence[str],
    *,
    seed: int = 0,
) -> Representation:
    """Compares the calibration images with the evaluation's.

    Args:
        calibration: Independent images.
        evaluation: Independent images.
        classes: Names in the order of the labels.
        seed: Of the permutations.

    Raises:
        InputError: Fewer than eight images to calibrate with.
    """
    check_count(len(calibration))
    aspects = {
        "brightness": _light(calibration, evaluation, "brightness"),
        "contrast": _light(calibration, evaluation, "contrast"),
        "size": _sizes(calibration, evaluation),
        "classes": _classes(calibration, evaluation, classes),
        "features": _features(calibration, evaluation, seed),
    }
    wrong = tuple(f"{name}: {each.sentence}" for name, each in aspects.items() if each.differs)
    frozen = MappingProxyType(aspects)
    if wrong:
        return Representation("differs", wrong, frozen)
    notes = [f"{name}: {each.sentence}" for name, each in aspects.items() if each.statistic is None]
    few, many = len(calibration), len(evaluation)
    if visible_ks(few, many) > _BLIND_KS:
        said = f"{few} calibration and {many} evaluation images are too few to see a difference"
        return Representation("undecided", (said, *notes), frozen)
    said = f"{few} calibration and {many} evaluation images differ in nothing large"
    return Representation("represents", (said, *notes), frozen)


def check_count(images: int, what: str = "the data") -> None:
    """Refuses what cannot calibrate.

    Raises:
        InputError: Fewer than eight images.
    """
    if images < LEAST:
        raise InputError(
            f"{what} leaves {images} images for calibration",
            f"give {LEAST} at the very least, better 100-500",
        )


def visible_ks(one: int, other: int) -> float:
    """Returns the least Kolmogorov-Smirnov distance that is significant (Smirnov 1948)."""
    return float(np.sqrt(-np.log(ALPHA / 2) / 2 * (one + other) / max(1, one * other)))


def _unjudged(limit: float, sentence: str) -> Aspect:
    return Aspect(None, limit, None, False, sentence)


def _light(
    calibration: Sequence[Description],
    evaluation: Sequence[Description],
    name: Literal["brightness", "contrast"],
) -> Aspect:
    one, other = (
        np.array([getattr(each, name) for each in side], dtype=np.float64)
        for side in (calibration, evaluation)
    )
    statistic, p, differs = _compare(one, other, LARGE_LIGHT)
    sentence = f"calibration {_spread(one)}, evaluation {_spread(other)}"
    if differs:
        sentence += "; add images as the evaluation's"
    return Aspect(statistic, LARGE_KS, p, differs, sentence)


def _compare(one: Values, other: Values, large_shift: float) -> tuple[float, float, bool]:
    """Returns Kolmogorov-Smirnov distance, its p, and whether it is significant and large.

    Large is twice over: for many images, and by a shift (Wasserstein distance) that matters. Of
    a camera that always gives 100 ± 2, a set of 105 ± 2 is far by rank and near by light.
    """
    from scipy.stats import ks_2samp, wasserstein_distance

    found = ks_2samp(one, other)
    statistic, p = float(found.statistic), float(found.pvalue)
    shift = float(wasserstein_distance(one, other))
    return statistic, p, p < ALPHA and statistic >= LARGE_KS and shift >= large_shift


def _spread(values: Values) -> str:
    low, middle, high = np.percentile(values, (10, 50, 90))
    return f"{middle:.0f} ({low:.0f} to {high:.0f})"


def _sizes(calibration: Sequence[Description], evaluation: Sequence[Description]) -> Aspect:
    if all(each.classes is None for each in calibration):
        return _unjudged(LARGE_KS, _UNLABELLED)
    # The image is the unit: objects of one image are of a size more often than not.
    one, other = (
        np.array([np.median(each.areas[each.areas > 0]) for each in side if (each.areas > 0).any()])
        for side in (calibration, evaluation)
    )
    if not len(one) or not len(other):
        return _unjudged(LARGE_KS, "not judged, one side has no objects")
    statistic, p, differs = _compare(np.log2(one), np.log2(other), LARGE_DOUBLINGS)
    sentence = (f"objects take {np.median(one):.2%} of a calibration image, "
                f"{np.median(other):.2%} of an evaluation image")  # fmt: skip
    if differs:
        sentence += "; add images with objects of the evaluation's sizes"
    return Aspect(statistic, LARGE_KS, p, differs, sentence)


def _classes(
    calibration: Sequence[Description], evaluation: Sequence[Description], names: Sequence[str]
) -> Aspect:
    from scipy.stats import fisher_exact

    known = [each.classes for each in calibration if each.classes is not None]
    wanted = [each.classes for each in evaluation if each.classes is not None]
    if not known or not wanted:
        return _unjudged(LARGE_SHARE, _UNLABELLED)
    present = sorted(frozenset().union(*wanted))
    rows = [(sum(at in each for each in known), sum(at in each for each in wanted), at)
            for at in present]  # fmt: skip
    missing, wrong, least, largest = [], [], 1.0, 0.0
    for mine, theirs, at in rows:
        table = [[mine, len(known) - mine], [theirs, len(wanted) - theirs]]
        p = min(1.0, float(fisher_exact(table).pvalue) * len(present))
        gap = abs(mine / len(known) - theirs / len(wanted))
        least, largest = min(least, p), max(largest, gap)
        missing += [names[at]] if not mine else []
        # A class that is not there at all is large however rare it is; chance must still be ruled
        # out: of 80 classes some are in no more than one image.
        if p < ALPHA and (gap >= LARGE_SHARE or not mine):
            wrong.append(f"{names[at]} in {mine / len(known):.0%} of the calibration images, "
                         f"in {theirs / len(wanted):.0%} of the evaluation's")  # fmt: skip
    return Aspect(largest, LARGE_SHARE, least, bool(wrong), _said(wrong, missing, len(present)))


def _said(wrong: Sequence[str], missing: Sequence[str], present: int) -> str:
    if wrong:
        return "; ".join(wrong[:_NAMED]) + "; add images of them"
    if missing:
        more = ", …" if len(missing) > _NAMED else ""
        return (f"{len(missing)} of {present} classes are in no calibration image, rare enough "
                f"for chance ({', '.join(missing[:_NAMED])}{more})")  # fmt: skip
    return f"all {present} classes of the evaluation are there"


def _features(
    calibration: Sequence[Description], evaluation: Sequence[Description], seed: int
) -> Aspect:
    rng = np.random.default_rng(seed)
    one, other = (
        np.stack([each.features for each in _sample(side, rng)]).astype(np.float64)
        for side in (calibration, evaluation)
    )
    statistic, p = energy(one, other, rng)
    differs = statistic >= LARGE_ENERGY and p < ALPHA
    sentence = f"energy coefficient {statistic:.3f}, large from {LARGE_ENERGY}"
    if differs:
        sentence = f"the detector sees other pictures ({sentence}); add images as the evaluation's"
    return Aspect(statistic, LARGE_ENERGY, p, differs, sentence)


def _sample(side: Sequence[Description], rng: np.random.Generator) -> Sequence[Description]:
    if len(side) <= _LARGEST_SAMPLE:
        return side
    return [side[at] for at in rng.choice(len(side), _LARGEST_SAMPLE, replace=False)]


def energy(one: Values, other: Values, rng: np.random.Generator) -> tuple[float, float]:
    """Returns the energy coefficient of two samples and its p by permutation.

    1 - (mean distance within the sets) / (mean distance between them), 0 for the same
    distribution, 1 for two points apart (Székely and Rizzo, "Energy statistics: a class of
    statistics based on distances", 2013). Means are taken without the zero distances of an image
    to itself, so that small samples do not look different.

    Args:
        one: (n, k) features.
        other: (m, k) features.
        rng: Of the permutations.
    """
    joint = np.concatenate([one, other])
    spread = joint.std(axis=0)
    moving = spread > 1e-9
    if not moving.any():
        return 0.0, 1.0
    points = (joint[:, moving] - joint[:, moving].mean(axis=0)) / spread[moving]
    away = distances(points, points)
    np.fill_diagonal(away, 0.0)
    member = np.zeros((_PERMUTATIONS + 1, len(points)))
    member[0, : len(one)] = 1
    for row in member[1:]:
        row[rng.choice(len(points), len(one), replace=False)] = 1
    found = _coefficients(away, member, len(one), len(other))
    p = (1 + int((found[1:] >= found[0]).sum())) / (1 + _PERMUTATIONS)
    return float(max(0.0, found[0])), float(p)


def _coefficients(away: Values, member: Values, one: int, other: int) -> Values:
    """Returns the coefficient for each row of 0/1 membership."""
    reach = member @ away
    inside = (reach * member).sum(axis=1)
    between = reach.sum(axis=1) - inside
    outside = away.sum() - inside - 2 * between
    within = (inside / max(1, one * (one - 1)) + outside / max(1, other * (other - 1))) / 2
    return np.asarray(1 - within / np.maximum(between / (one * other), 1e-12))
