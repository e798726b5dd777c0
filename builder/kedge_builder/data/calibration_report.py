"""What ``report.json`` says of the calibration set. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from kedge_builder.data.curation import Curation, Pair
from kedge_builder.data.features import Description
from kedge_builder.data.representation import Aspect
from kedge_builder.data.selection import size_shares

#: Grey levels: sixteen bars over brightness and over the half as wide range of contrast.
_BRIGHTNESS, _CONTRAST = np.linspace(0, 256, 17), np.linspace(0, 128, 17)
_SIZES = ("small", "medium", "large")


def as_report(curation: Curation) -> dict[str, Any]:
    """Returns the calibration set's part of ``report.json``.

    Histograms are shares of the images of ``pool``, ``chosen`` and ``evaluation``.
    """
    found = curation.representation
    sides = {
        "pool": curation.pool,
        "chosen": curation.calibration,
        "evaluation": curation.evaluation,
    }
    figures: dict[str, dict[str, Any]] = {
        "brightness": _histograms(sides, "brightness", _BRIGHTNESS),
        "contrast": _histograms(sides, "contrast", _CONTRAST),
        "size": {"bins": list(_SIZES), **{name: _sizes(each) for name, each in sides.items()}},
        "classes": {name: _classes(each, curation.classes) for name, each in sides.items()},
        "features": {
            "distance_to_nearest_chosen": round(curation.coverage, 4),
            "distance_at_random": round(curation.random_coverage, 4),
        },
    }
    return {
        "images": len(curation.chosen),
        "pool": len(curation.pool) + len(curation.duplicates) + len(curation.leaks),
        "near_duplicates": _pairs(curation.duplicates),
        "leaks": _pairs(curation.leaks),
        "verdict": found.verdict,
        "reasons": list(found.reasons),
        "coverage": {
            name: {**_aspect(each), **figures[name]} for name, each in found.aspects.items()
        },
    }


def _pairs(pairs: Sequence[Pair]) -> list[dict[str, str]]:
    return [{"image": each.name, "same_as": each.other} for each in pairs]


def _aspect(aspect: Aspect) -> dict[str, Any]:
    return {
        "differs": aspect.differs,
        "statistic": None if aspect.statistic is None else round(aspect.statistic, 4),
        "large_from": aspect.limit,
        "p": aspect.p,
        "sentence": aspect.sentence,
    }


def _histograms(
    sides: dict[str, tuple[Description, ...]], name: str, edges: Any
) -> dict[str, list[float]]:
    found = {"bins": [float(each) for each in edges]}
    for side, images in sides.items():
        counts, _ = np.histogram([getattr(each, name) for each in images], bins=edges)
        found[side] = _rounded(counts / max(1, len(images)))
    return found


def _sizes(images: Sequence[Description]) -> list[float]:
    """Returns the shares of small, medium and large, averaged over images with objects."""
    shares = [size_shares(each) for each in images if len(each.areas)]
    return _rounded(np.mean(shares, axis=0)) if shares else []


def _classes(images: Sequence[Description], names: Sequence[str]) -> dict[str, float]:
    """Returns the share of the labelled images that hold each class."""
    known = [each.classes for each in images if each.classes is not None]
    return {
        name: round(sum(at in each for each in known) / len(known), 4)
        for at, name in enumerate(names)
        if known
    }


def _rounded(values: Any) -> list[float]:
    return [round(float(each), 4) for each in values]
