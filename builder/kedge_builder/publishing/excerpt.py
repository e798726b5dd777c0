"""The part of ``report.json`` that is published: what people ask of a release.

A report is as long as its search and its graph; the published part is bounded, and says where it
was cut.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec

from kedge_builder.report import reading
from kedge_builder.report.reading import REPORT, Report
from kedge_shared import wire
from kedge_shared.attachments import LIMITS_BYTES
from kedge_shared.attachments import REPORT as LISTED
from kedge_shared.build_report import (
    BLOCKS_MOST,
    CANDIDATES_MOST,
    CLASSES_MOST,
    LAYERS_MOST,
    POINTS_MOST,
    SENTENCE_MOST,
    SENTENCES_MOST,
    WORD_MOST,
    Block,
    BuildReport,
    Candidate,
    Figures,
    Layer,
    Loss,
    Point,
    Search,
    read_build_report,
)
from kedge_shared.errors import InputError
from kedge_shared.manifest import Manifest


class _Interval(msgspec.Struct, frozen=True):
    estimate: float
    low: float | None
    high: float | None


class _Drop(msgspec.Struct, frozen=True):
    map50_95: _Interval
    per_class: dict[str, float]


class _Measured(msgspec.Struct, frozen=True):
    """Figures of ``report.json`` that explanations have no use for."""

    before: Figures = msgspec.field(name="float")
    built: Figures
    drop: _Drop
    images: int


def excerpt(folder: Path, manifest: Manifest, manifest_sha256: str) -> bytes | None:
    """Returns the part of a build's report that is published; ``None`` if there is no report.

    Raises:
        InputError: It cannot be read, or is of another build.
    """
    path = folder / REPORT
    if not path.is_file():
        return None
    report = reading.read_report(folder)
    said = (report.model, report.release, report.device_class)
    if said != (manifest.model, manifest.release, manifest.device_class):
        raise InputError(f"{path} is of another build: {' '.join(said)}", "build it again")
    data = wire.read_limited(path, "report", reading.LIMIT_BYTES)
    measured = wire.decode(data, _Measured, f"report {path}")
    found = _fitting(cut(report, measured, manifest_sha256))
    read_build_report(found, manifest_sha256)  # what the server would refuse is not uploaded
    return found


def cut(report: Report, measured: _Measured, manifest_sha256: str) -> BuildReport:
    """Returns what of a report is published, every text and list within its bounds."""
    precision, calibration, drop = report.precision, report.calibration, measured.drop
    return BuildReport(
        schema=1,
        manifest=manifest_sha256,
        reasons=_sentences(report.reasons),
        notes=_sentences(report.notes),
        images=measured.images,
        before=measured.before,
        built=measured.built,
        loss=Loss(
            estimate=drop.map50_95.estimate, low=drop.map50_95.low, high=drop.map50_95.high,
            per_class=_worst(drop.per_class),
        ),
        plan=_word(precision.plan),
        why=_sentence(calibration.why),
        form=_word(precision.form),
        candidates=tuple(
            Candidate(name=_word(each.name), map50_95=each.select_map50_95, drop=each.drop,
                      size_bytes=each.bytes, taken=each.taken)
            for each in _candidates(calibration.candidates)
        ),
        layers=tuple(
            Layer(name=_word(each.name), operator=_word(each.operator), block=_word(each.block),
                  precision=_word(each.precision), reason=_sentence(each.reason))
            for each in precision.layers[:LAYERS_MOST]
        ),
        layers_in_all=len(precision.layers),
        sensitivity=tuple(
            Block(block=_word(each.block), distortion_saved=each.distortion_saved,
                  points_gained=each.points_gained, ms_added=each.ms_added)
            for each in precision.sensitivity[:BLOCKS_MOST]
        ),
        search=_search(report.search),
    )  # fmt: skip


def _fitting(found: BuildReport) -> bytes:
    """Encodes it; where it is too large it lists fewer layers, and says how many there are."""
    data = wire.encode(found)
    while len(data) > LIMITS_BYTES[LISTED] and found.layers:
        fewer = found.layers[: len(found.layers) // 2]
        found = msgspec.structs.replace(found, layers=fewer)
        data = wire.encode(found)
    return data


def _candidates(rows: list[reading.CandidateRow]) -> Iterable[reading.CandidateRow]:
    """Returns the first ones, and the one that was taken wherever it stands."""
    if len(rows) <= CANDIDATES_MOST:
        return rows
    taken = [each for each in rows if each.taken]
    others = [each for each in rows if not each.taken]
    return [*others[: CANDIDATES_MOST - len(taken)], *taken]


def _worst(per_class: Mapping[str, float]) -> dict[str, float]:
    """Returns what classes lost, those that lost most first."""
    ordered = sorted(per_class.items(), key=lambda each: (-each[1], each[0]))
    return {_word(name): value for name, value in ordered[:CLASSES_MOST]}


def _search(search: Mapping[str, Any]) -> Search | None:
    if not search:
        return None
    trials = search["trials"]
    points = list(_points(search))
    points.sort(key=lambda each: (not (each.picked or each.baseline), not each.front,
                                  not each.feasible, each.latency_p50_ms))  # fmt: skip
    return Search(
        goal=_word(search["goal"]), reason=_sentence(search["reason"]), measured=len(points),
        failed=len(trials) - len(points), points=tuple(points[:POINTS_MOST]),
    )  # fmt: skip


def _points(search: Mapping[str, Any]) -> Iterator[Point]:
    for each in search["trials"]:
        figures = each["measured"]
        if figures:
            yield Point(
                title=_word(each["title"]), map50_95=figures["map50_95"],
                latency_p50_ms=figures["latency_p50_ms"], size_bytes=figures["size_bytes"],
                front=each["front"], feasible=each["feasible"], why=_sentence(each["why"]),
                picked=each["key"] == search["picked"], baseline=each["key"] == search["baseline"],
            )  # fmt: skip


def _sentences(texts: list[str]) -> tuple[str, ...]:
    return tuple(_sentence(each) for each in texts[:SENTENCES_MOST])


def _sentence(text: str) -> str:
    return _clipped(text, SENTENCE_MOST)


def _word(text: str) -> str:
    return _clipped(text, WORD_MOST)


def _clipped(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"
