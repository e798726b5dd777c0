"""Manifest and files of a build; a folder appears whole or not at all."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from kedge_builder.compilers.on_board import on_device
from kedge_builder.compilers.step import Plans
from kedge_builder.data.datasets import Sample
from kedge_builder.judge.acceptance import Decision, Figures
from kedge_builder.measure.engines import EngineFile
from kedge_builder.measure.evaluate import Drop
from kedge_builder.publishing.origin import PROVENANCE
from kedge_builder.quantize.source import Source
from kedge_builder.recipe import BuildOptions
from kedge_builder.report.bom import bom
from kedge_builder.report.contents import Measurement
from kedge_builder.report.provenance import provenance
from kedge_shared import wire
from kedge_shared.bench import Speed
from kedge_shared.detections import Array
from kedge_shared.device_classes import DeviceClass
from kedge_shared.errors import InputError, StorageError
from kedge_shared.golden import write_references
from kedge_shared.ids import sha256_hex
from kedge_shared.manifest import (
    FileRef,
    Golden,
    Manifest,
    Provenance,
    Shadow,
    Tolerances,
)
from kedge_shared.manifest import Measured as MeasuredFigure
from kedge_shared.resolver import requires
from kedge_shared.timing import Timed

REFERENCES = "golden-references.json"
_MIB = 2**20


@dataclass(frozen=True)
class Measured:
    """Everything measured of a build.

    Attributes:
        before: The float model.
        after: The built engine.
        drop: Of mAP50-95.
        speed: Built against float, round by round; ``None``: not measured.
        where: Machine that latency and memory were measured on.
        memory_mb: That loading it added, or ``None`` if that failed.
        references: Golden frame's hash → detections of the built engine.
        tolerances: How near a board must come.
        engines: Float and built, loaded, each with its own input.
    """

    before: Measurement
    after: Measurement
    drop: Drop
    speed: Speed | None
    where: str
    memory_mb: float | None
    references: Mapping[str, Array]
    tolerances: Tolerances
    engines: tuple[Timed, Timed]

    @property
    def figures(self) -> Figures:
        """What the gate judges."""
        return Figures(
            latency_p95_ms=self.after.latency.p95 if self.after.latency else None,
            memory_mb=self.memory_mb,
            artifact_mb=self.after.size_bytes / _MIB,
            drop=self.drop.estimate,
            drop_low=self.drop.low,
            drop_high=self.drop.high,
            speed=self.speed,
            finite=self.after.accuracy.finite,
            seen=self.after.accuracy.seen,
            float_seen=self.before.accuracy.seen,
            images=len(self.after.accuracy.stats),
        )


@contextmanager
def scratch(out: Path) -> Iterator[Path]:
    """Yields a folder beside ``out``, removed afterwards whatever happens.

    Raises:
        InputError: ``out`` is a file.
        StorageError: The disk is full or cannot be written.
    """
    if out.exists() and not out.is_dir():
        raise InputError(f"{out} is a file", "name a folder with --out")
    folder: Path | None = None
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=f".{out.name}-", dir=out.parent))
        yield folder
    except OSError as error:
        if error.errno in {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.ENOTDIR}:
            raise StorageError(
                f"build cannot be written to {out}: {error.strerror}",
                "free or choose another disk; nothing was left behind",
            ) from None
        raise
    finally:
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)


def publish(made: Path, out: Path) -> None:
    """Moves every folder under ``made`` to ``out``, each by one rename."""
    out.mkdir(exist_ok=True)
    for folder in sorted(made.iterdir()):
        for file in folder.rglob("*"):
            if file.is_file():
                _sync(file)
        target = out / folder.name
        if target.exists():
            old = made / f".old-{folder.name}"
            target.rename(old)
        folder.rename(target)


def make_manifest(
    options: BuildOptions,
    device_class: DeviceClass,
    source: Source,
    files: Sequence[EngineFile],
    plans: Plans,
    measured: Measured,
    decision: Decision,
    made_from: Provenance,
    terms: Shadow,
) -> Manifest:
    """Returns the manifest of a build; it is written only if the build may be published."""
    references = write_references(measured.references)
    digest = sha256_hex(references)
    refs = [_ref(each) for each in (*files, *plans.files)]
    refs.append(
        FileRef(role="golden-references", name=REFERENCES, sha256=digest, length=len(references))
    )
    verdict: Literal["pass", "overridden", "undecided"] = (
        "pass" if decision.verdict == "missed" else decision.verdict
    )
    return Manifest(
        schema=1,
        model=options.model,
        release=options.release,
        release_counter=options.release_counter,
        device_class=device_class.name,
        runtime=device_class.runtime,
        requires=requires(device_class),
        files=tuple(refs),
        input=source.given,
        output=source.read,
        golden=Golden(references=digest, tolerances=measured.tolerances),
        budgets=device_class.budgets,
        provenance=made_from,
        measured=_measured_rows(measured),
        overrides=decision.overrides,
        shadow=terms,
        verdict=verdict,
        plans=plans.plans,
        on_device=on_device(device_class, files),
    )


def write_class(
    folder: Path,
    files: Sequence[EngineFile],
    manifest: Manifest,
    measured: Measured,
    decision: Decision,
    contents: dict[str, Any],
    page: str,
    calibration: Sequence[Sample],
) -> None:
    """Writes one class. A build that missed its budget gets no manifest: it cannot be published."""
    folder.mkdir()
    for each in files:
        shutil.copyfile(each.path, folder / each.path.name)
    (folder / REFERENCES).write_bytes(write_references(measured.references))
    (folder / "report.json").write_bytes(wire.encode_pretty(contents))
    (folder / "report.html").write_text(page)
    (folder / "bom.json").write_bytes(bom(manifest, contents, calibration))
    if decision.verdict != "missed":
        body = wire.encode_pretty(manifest)
        (folder / "manifest.json").write_bytes(body)
        (folder / PROVENANCE).write_bytes(provenance(manifest, body, calibration))


def _ref(file: EngineFile) -> FileRef:
    data = file.path.read_bytes()
    return FileRef(role=file.role, name=file.path.name, sha256=sha256_hex(data), length=len(data))


def _measured_rows(measured: Measured) -> tuple[MeasuredFigure, ...]:
    where = measured.where
    figures = measured.after.figures()
    names = ("map50", "map50_95", "latency_p50_ms", "latency_p95_ms")
    return tuple(
        MeasuredFigure(what=name, value=float(figures[name]), machine=where)
        for name in names
        if figures[name] is not None
    )


def _sync(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
