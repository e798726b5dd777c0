"""Why a build is as it is: answers from its report. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from kedge_builder.report.reading import BlockRow, CandidateRow, LayerRow, Precision, Report
from kedge_shared.errors import InputError

_NEAR = 5


@dataclass(frozen=True, kw_only=True)
class FloatBlock:
    """A block that mixed precision left float.

    Attributes:
        name: Of the block.
        layers: Nodes in it.
        measured: What that saves and costs; ``None`` if it was not measured.
    """

    name: str
    layers: int
    measured: BlockRow | None


@dataclass(frozen=True, kw_only=True)
class LayerCount:
    """Layers that share a precision and the gist of their reasons."""

    precision: str
    reason: str
    layers: int


@dataclass(frozen=True, kw_only=True)
class Searched:
    """What a search took.

    Attributes:
        goal: ``fastest``, ``smallest`` or ``most-accurate``.
        picked: Title of the point.
        reason: Why it.
        points: Measured points.
        failed: Points that could not be built.
    """

    goal: str
    picked: str
    reason: str
    points: int
    failed: int


@dataclass(frozen=True, kw_only=True)
class Overview:
    """Why a build is as it is, as a whole; fields as in ``report.json``."""

    model: str
    release: str
    device_class: str
    verdict: str
    reasons: list[str]
    overrides: list[dict[str, str]]
    notes: list[str]
    plan: str
    plan_reason: str
    candidates: list[CandidateRow]
    aim: float
    rungs: list[str]
    float_blocks: list[FloatBlock]
    layers: list[LayerCount]
    calibration_images: int
    calibration_pool: int | None
    calibration_verdict: str | None
    calibration_reasons: list[str]
    search: Searched | None
    provenance: dict[str, str]


@dataclass(frozen=True, kw_only=True)
class Answer:
    """Why a layer, or the layers of a block, have their precision.

    Attributes:
        name: That was asked for.
        layers: The one, or those of the block.
        block: That they belong to; empty in the float zone.
        sensitivity: What leaving the block float does; ``None`` if that was not measured.
        sensitivity_of: Why there is no such row, or what it was measured on.
    """

    name: str
    layers: list[LayerRow]
    block: str
    sensitivity: BlockRow | None
    sensitivity_of: str


def overview(report: Report) -> Overview:
    """Explains a build as a whole."""
    precision, calibration = report.precision, report.calibration
    return Overview(
        model=report.model,
        release=report.release,
        device_class=report.device_class,
        verdict=report.verdict,
        reasons=report.reasons,
        overrides=report.overrides,
        notes=report.notes,
        plan=calibration.chosen,
        plan_reason=calibration.why,
        candidates=calibration.candidates,
        aim=precision.aim,
        rungs=precision.rungs,
        float_blocks=_float_blocks(precision),
        layers=_counts(precision.layers),
        calibration_images=calibration.images,
        calibration_pool=calibration.pool,
        calibration_verdict=calibration.verdict,
        calibration_reasons=calibration.reasons,
        search=_searched(report.search),
        provenance=report.provenance,
    )


def layer(report: Report, name: str) -> Answer:
    """Explains one node by its exact name, or a block by its name.

    Raises:
        InputError: There is neither; near names are said.
    """
    rows = report.precision.layers
    found = [each for each in rows if each.name == name]
    found = found or [each for each in rows if each.block == name and name]
    if not found:
        raise InputError(f"{report.device_class} has no layer or block {name!r}", _near(rows, name))
    block = found[0].block
    row = next((each for each in report.precision.sensitivity if each.block == block), None)
    return Answer(
        name=name, layers=found, block=block, sensitivity=row,
        sensitivity_of=_sensitivity_of(report, block, row),
    )  # fmt: skip


def gist(reason: str) -> str:
    """Returns a layer's reason without its own figures, for counting."""
    for figures in ("; float would take", ": float takes", "; weights "):
        reason = reason.partition(figures)[0]
    return reason


def searched_elsewhere(search: dict[str, Any]) -> str:
    """Returns the pick's title if its graph is not the one that blocks were measured on."""
    if not search:
        return ""
    points = {each["key"]: each for each in search["trials"]}
    taken, base = points.get(search["picked"]), points.get(search["baseline"])
    if taken is None or base is None:
        return ""
    same = all(taken["point"][key] == base["point"][key] for key in ("pruned", "input_size"))
    return "" if same else str(taken["title"])


def _float_blocks(precision: Precision) -> list[FloatBlock]:
    rows = {each.block: each for each in precision.sensitivity}
    size = Counter(each.block for each in precision.layers)
    return [
        FloatBlock(name=each, layers=size[each], measured=rows.get(each))
        for each in precision.float_blocks
    ]


def _counts(layers: Sequence[LayerRow]) -> list[LayerCount]:
    counts = Counter((each.precision, gist(each.reason)) for each in layers)
    return [
        LayerCount(precision=precision, reason=reason, layers=count)
        for (precision, reason), count in sorted(counts.items(), key=lambda e: (-e[1], e[0]))
    ]


def _searched(search: dict[str, Any]) -> Searched | None:
    if not search:
        return None
    trials = search["trials"]
    titles = {each["key"]: str(each["title"]) for each in trials}
    return Searched(
        goal=search["goal"],
        picked=titles.get(search["picked"], search["picked"]),
        reason=search["reason"],
        points=sum(each["measured"] is not None for each in trials),
        failed=sum(each["measured"] is None for each in trials),
    )


def _sensitivity_of(report: Report, block: str, row: BlockRow | None) -> str:
    if row is not None:
        elsewhere = searched_elsewhere(report.search)
        if not elsewhere:
            return "measured on the plain INT8 engine"
        return f"measured before the search took {elsewhere}"
    if report.precision.form == "float16":
        return "not measured: FP16 quantizes no block"
    if not block:
        return "not measured: the float zone is no block and is never quantized"
    if "mixed" in report.precision.rungs:
        return "not measured for this block"
    return "not measured: plain INT8 lost too little to try float blocks, or the recipe forbade it"


def _near(layers: Sequence[LayerRow], name: str) -> str:
    names = list(dict.fromkeys([e.block for e in layers if e.block] + [e.name for e in layers]))
    near = get_close_matches(name, names, _NEAR, 0.5)
    near += [each for each in names if name and name in each and each not in near]
    if near:
        return f"near: {', '.join(near[:_NEAR])}"
    return f"layers are named like {names[-1]}" if names else "the report lists no layer"
