"""``report.json`` read back: the fields that explanations need, checked. No vendor is imported."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kedge_shared import wire
from kedge_shared.errors import InputError

REPORT = "report.json"
#: A YOLOv8x has 500 nodes and writes 150 kB; a search of a thousand points adds 500 kB.
LIMIT_BYTES = 16 * 1024 * 1024


@dataclass(frozen=True, kw_only=True)
class LayerRow:
    """One node of the float graph and what became of it."""

    name: str
    operator: str
    precision: str
    reason: str
    block: str = ""


@dataclass(frozen=True, kw_only=True)
class BlockRow:
    """What leaving one block float saves in distortion and mAP points, and costs in ms a frame.

    ``ms_added`` is ``None`` where it could not be measured.
    """

    block: str
    distortion_saved: float
    points_gained: float
    ms_added: float | None


@dataclass(frozen=True, kw_only=True)
class CandidateRow:
    """One engine that was measured on the select images; drops are fractions."""

    name: str
    select_map50_95: float
    drop: float
    drop_low: float
    drop_high: float
    distortion: float
    bytes: int
    taken: bool = False


@dataclass(frozen=True, kw_only=True)
class Precision:
    """Every layer, and the climb that set its precision."""

    form: str
    plan: str
    aim: float
    rungs: list[str]
    float_blocks: list[str]
    sensitivity: list[BlockRow]
    layers: list[LayerRow]


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """The images, the candidates, and which of them was taken."""

    images: int
    chosen: str
    why: str
    candidates: list[CandidateRow]
    pool: int | None = None
    verdict: str | None = None
    reasons: list[str] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class Report:
    """A report, as far as it explains."""

    model: str
    release: str
    device_class: str
    verdict: str
    reasons: list[str]
    overrides: list[dict[str, str]]
    notes: list[str]
    precision: Precision
    calibration: Calibration
    search: dict[str, Any]
    provenance: dict[str, str]


def read_report(build: Path) -> Report:
    """Reads the report of a build.

    Args:
        build: Folder of one class, or the folder above when it holds one class.

    Raises:
        InputError: No report is there, several are, or it cannot be read.
    """
    folder = _folder(build)
    data = wire.read_limited(folder / REPORT, "report", LIMIT_BYTES)
    return wire.decode(data, Report, f"report {folder / REPORT}")


def _folder(build: Path) -> Path:
    if (build / REPORT).is_file():
        return build
    if not build.is_dir():
        raise InputError(f"{build} is no folder", "name one that `kedge build --out` wrote")
    found = sorted(each.parent for each in build.glob(f"*/{REPORT}"))
    if not found:
        raise InputError(f"{build} holds no build", "name a folder that `kedge build` wrote")
    if len(found) > 1:
        names = ", ".join(str(each) for each in found)
        raise InputError(f"{build} holds {len(found)} builds", f"name one of {names}")
    return found[0]
