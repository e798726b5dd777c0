"""The build that boards run now, read back and compared with the new one on the gate images."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from kedge_builder.data.datasets import Sample
from kedge_builder.judge.terms import Compared, compared
from kedge_builder.measure import engines
from kedge_builder.measure.engines import EngineFile
from kedge_builder.measure.latency import Timed
from kedge_shared import wire
from kedge_shared.detections import Array
from kedge_shared.errors import InputError
from kedge_shared.ids import sha256_hex
from kedge_shared.manifest import MANIFEST_LIMIT_BYTES, Manifest, Shadow, read_manifest
from kedge_shared.pairing import Pairing
from kedge_shared.vision import Frame, decode, prepare

_ENGINE = ("engine", "engine-weights")


@dataclass(frozen=True)
class Predecessor:
    """A build of an earlier release.

    Attributes:
        manifest: Its.
        files: Its engine, hashed against the manifest.
    """

    manifest: Manifest
    files: tuple[EngineFile, ...]


@dataclass(frozen=True)
class _Said:
    rows: Array
    classes: tuple[str, ...]


def find(folder: Path, device_class: str) -> Predecessor:
    """Reads the build of a class.

    Args:
        folder: What ``kedge build --out`` wrote, or one class in it.
        device_class: Name.

    Raises:
        InputError: There is none for this class, or its engine is not the one its manifest names.
    """
    inner = folder / device_class
    path = (inner if inner.is_dir() else folder) / "manifest.json"
    manifest = read_manifest(wire.read_limited(path, "manifest", MANIFEST_LIMIT_BYTES))
    if manifest.device_class != device_class:
        raise InputError(f"{path} is a build for {manifest.device_class}, not for {device_class}",
                         "name the folder that holds the class with --previous")  # fmt: skip
    files = []
    for each in (each for each in manifest.files if each.role in _ENGINE):
        data = wire.read_limited(path.parent / each.name, "engine", each.length)
        if sha256_hex(data) != each.sha256:
            raise InputError(f"{path.parent / each.name} is not what its manifest names",
                             "name the folder as `kedge build` wrote it")  # fmt: skip
        files.append(EngineFile(each.role, path.parent / each.name))
    return Predecessor(manifest, tuple(files))


def compare(
    older: Predecessor,
    newer: Timed,
    terms: Shadow,
    samples: Sequence[Sample],
    tick: Callable[[], None],
    *,
    threads: int,
    seed: int,
) -> Compared:
    """Runs both engines over images, each with its own pre-processing.

    Args:
        older: What boards run.
        newer: The new engine.
        terms: Renamed classes, classes that must hold.
        samples: Images.
        tick: Called after each.
        threads: For the older engine.
        seed: Of the interval.
    """
    manifest = older.manifest
    engine = engines.load(manifest.runtime.name, older.files, threads)
    before = Timed(engine, manifest.input, manifest.output)
    pairing, scores = Pairing(newer.read, terms), []
    for each in samples:
        frame = each.frame()
        scores.append(pairing(_said(before, frame), _said(newer, frame)).score)
        tick()
    return compared(manifest.release, scores, seed=seed)


def _said(by: Timed, frame: Frame) -> _Said:
    batch, place = prepare(frame, by.given)
    return _Said(decode(by.engine.infer(batch), place, by.read), by.read.classes)
