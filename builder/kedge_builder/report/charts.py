"""The pictures of a report page, drawn from what ``report.json`` holds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from kedge_builder.report.bars import drops_svg, histogram_svg
from kedge_builder.report.front import front_svg
from kedge_builder.report.strip import strip_svg
from kedge_builder.report.tradeoff import tradeoff_svg

#: Classes with the largest losses; the whole list is in the table.
_CLASSES = 12
_HISTOGRAM_WIDTH = 440
_SIDES = ("pool", "chosen", "evaluation")


def charts(contents: Mapping[str, Any]) -> dict[str, Any]:
    """Returns pictures by place; ``coverage`` maps an aspect to its picture.

    ``front`` is the search's where there was one, else accuracy against size.
    """
    drops = contents["drop"]["per_class"]
    worst = dict(sorted(drops.items(), key=lambda each: -each[1])[:_CLASSES])
    return {
        "front": front_svg(contents["search"]) if contents["search"] else tradeoff_svg(contents),
        "strip": strip_svg(contents["precision"]),
        "drops": drops_svg(worst, title="Points of mAP50-95 lost, by class"),
        "coverage": _coverage(contents["calibration"].get("coverage", {})),
    }


def _coverage(coverage: Mapping[str, Any]) -> dict[str, Markup]:
    return {
        name: histogram_svg(
            _labels(aspect["bins"]),
            {name: aspect[name] for name in _SIDES},
            title=f"{name} of the images",
            id=f"coverage-{name}",
            width=_HISTOGRAM_WIDTH,
        )
        for name, aspect in coverage.items()
        if "bins" in aspect and all(aspect[each] for each in _SIDES)
    }


def _labels(bins: Sequence[Any]) -> list[str]:
    """Returns a label a bar: words as they are, edges of bins by their lower end."""
    if isinstance(bins[0], str):
        return list(bins)
    return [f"{each:g}" for each in bins[:-1]]
