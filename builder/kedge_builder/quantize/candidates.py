"""Quantizing for a class: candidates are made, measured on the select split, one is taken."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kedge_builder.data.datasets import Data, Sample
from kedge_builder.measure.engines import EngineFile, load
from kedge_builder.measure.evaluate import evaluate
from kedge_builder.progress import Progress
from kedge_builder.quantize import openvino, qdq
from kedge_builder.quantize.floatzone import FloatZone
from kedge_shared.detections import Array
from kedge_shared.device_classes import DeviceClass
from kedge_shared.manifest import InputSpec, OutputSpec
from kedge_shared.vision import prepare

#: Pixels that a histogram calibrator may look at: it counts every activation of every image.
_HISTOGRAM_PIXELS = 32 * 320 * 320


@dataclass(frozen=True)
class Source:
    """The float model that candidates are made from.

    Attributes:
        onnx: Float graph, prepared and named.
        zone: What stays float.
        given: Input of the engine.
        read: How its output is read.
    """

    onnx: Any
    zone: FloatZone
    given: InputSpec
    read: OutputSpec


@dataclass(frozen=True)
class Candidate:
    """One quantized engine.

    Attributes:
        name: How it was made.
        files: The engine.
        select_map50_95: On the select split, or ``None`` if there was nothing to choose.
    """

    name: str
    files: tuple[EngineFile, ...]
    select_map50_95: float | None = None


def build(
    device_class: DeviceClass, source: Source, data: Data, folder: Path, progress: Progress
) -> tuple[Candidate, tuple[Candidate, ...]]:
    """Returns the candidate taken and all that were measured."""
    batches = [prepare(each.frame(), source.given)[0] for each in data.calibrate]
    if device_class.form == "nncf-mixed":
        made = [_openvino(source, batches, folder)]
    else:
        made = _onnxruntime(source, batches, folder, reduce_range=device_class.reduce_range)
    if len(made) == 1:
        return made[0], tuple(made)
    scored = tuple(_scored(each, device_class, source, data.select, progress) for each in made)
    return max(scored, key=lambda each: each.select_map50_95 or 0.0), scored


def _openvino(source: Source, batches: Sequence[Array], folder: Path) -> Candidate:
    model = openvino.to_openvino(source.onnx.SerializeToString())
    quantized = openvino.quantize(model, source.zone, batches)
    path = folder / "model.xml"
    openvino.save(quantized, path)
    weights = EngineFile("engine-weights", path.with_suffix(".bin"))
    return Candidate("nncf-mixed", (EngineFile("engine", path), weights))


def _onnxruntime(
    source: Source, batches: Sequence[Array], folder: Path, *, reduce_range: bool
) -> list[Candidate]:
    few = max(4, _HISTOGRAM_PIXELS // (source.given.height * source.given.width))
    plans: list[tuple[qdq.Calibrator, Sequence[Array]]] = [
        ("minmax", batches),
        ("percentile", batches[:few]),
    ]
    made = []
    for calibrator, inputs in plans:
        model = qdq.quantize(
            source.onnx,
            source.zone,
            qdq.Calibration(calibrator, inputs),
            reduce_range=reduce_range,
        )
        path = folder / calibrator / "model.onnx"
        path.parent.mkdir()
        path.write_bytes(model)
        made.append(Candidate(calibrator, (EngineFile("engine", path),)))
    return made


def _scored(
    candidate: Candidate,
    device_class: DeviceClass,
    source: Source,
    select: Sequence[Sample],
    progress: Progress,
) -> Candidate:
    with progress.stage(f"{device_class.name}: choosing, {candidate.name}", len(select)) as tick:
        engine = load(device_class.runtime.name, candidate.files, device_class.threads)
        found = evaluate(engine, select, source.given, source.read, tick)
    return Candidate(candidate.name, candidate.files, found.map50_95)
