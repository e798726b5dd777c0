"""The figures of a build: what they are called, in which unit, and which way is better. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from kedge_shared.build_report import BuildReport
from kedge_shared.manifest import Manifest

ACCURACY, LATENCY, SIZE, LOSS = "map50_95", "latency_p95_ms", "size_mb", "loss_map50_95"


class Figure(NamedTuple):
    """What is known of a figure.

    Attributes:
        title: What people read.
        unit: Empty for a share.
        more: More of it is better.
        bound: It says something of its machine: on another one it cannot be compared.
    """

    title: str
    unit: str = ""
    more: bool = False
    bound: bool = False


FIGURES: Mapping[str, Figure] = {
    ACCURACY: Figure("mAP 50–95", more=True),
    "map50": Figure("mAP 50", more=True),
    LOSS: Figure("Loss of mAP 50–95 against float"),
    "latency_p50_ms": Figure("Frame time, median", "ms", bound=True),
    LATENCY: Figure("Frame time, p95", "ms", bound=True),
    SIZE: Figure("Download", "MB"),
}


def figures_of(manifest: Manifest, report: BuildReport | None = None) -> dict[str, float]:
    """Returns what was measured of a build, and the size of its files, by name."""
    found = {each.what: each.value for each in manifest.measured}
    if report is not None:
        found[LOSS] = report.loss.estimate
    return {**found, SIZE: sum(each.length for each in manifest.files) / 1e6}


def title(figure: str) -> str:
    """Returns what a figure is called."""
    return FIGURES[figure].title if figure in FIGURES else figure.replace("_", " ")
