"""Carries out a plan for one device class: from the float model to engine files, once."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

from kedge_builder.cache import Cache
from kedge_builder.data.datasets import Sample
from kedge_builder.measure import engines
from kedge_builder.measure.engines import EngineFile
from kedge_builder.progress import Progress
from kedge_builder.quantize import openvino, qdq
from kedge_builder.quantize.observe import Observations, observe
from kedge_builder.quantize.plan import Plan
from kedge_builder.quantize.refitting import refit_engine
from kedge_builder.quantize.source import Source, digest_of
from kedge_shared.device_classes import DeviceClass

#: Version of what this package itself does to a model; part of every key.
_METHOD = 4


class Quantizer:
    """Makes engines of one float model for one class.

    Args:
        device_class: What they are for.
        source: The float model.
        calibrate: Calibration images.
        cache: Keeps what was made.
        progress: Told of the calibration pass.
    """

    def __init__(
        self,
        device_class: DeviceClass,
        source: Source,
        calibrate: tuple[Sample, ...],
        cache: Cache,
        progress: Progress,
    ) -> None:
        self.device_class, self.source, self.calibrate = device_class, source, calibrate
        self._cache, self._progress = cache, progress
        self._seen: Observations | None = None

    def make(self, plan: Plan) -> tuple[EngineFile, ...]:
        """Returns the engine that ``plan`` makes."""
        if plan.precision == "float" and self.device_class.form != "nncf-mixed":
            return (EngineFile("engine", self.source.path),)
        inputs = {
            "float": self.source.sha256,
            "images": digest_of(self.calibrate),
            "form": self.device_class.form,
            "reduce_range": self.device_class.reduce_range,
            "plan": plan,
            "method": _METHOD,
        }
        write = self._write_openvino if self.device_class.form == "nncf-mixed" else self._write_qdq
        if plan.refit:
            write = self._write_refitted
        folder, _ = self._cache.files("quantized", inputs, lambda out: write(plan, out))
        return engine_files(folder)

    def _write_qdq(self, plan: Plan, out: Path) -> None:
        options = qdq.QdqOptions(
            form="qdq-u8s8" if self.device_class.form == "qdq-u8s8" else "qdq-s8s8",
            calibrator=plan.calibrator or "minmax",
            bias_correction=plan.bias_correction,
            reduce_range=self.device_class.reduce_range,
            keep_float=self.source.nodes_of(plan.float_blocks),
        )
        model = qdq.quantize(self.source.onnx, self.source.zone, self._observed(), options)
        (out / "model.onnx").write_bytes(model)

    def _write_openvino(self, plan: Plan, out: Path) -> None:
        model = openvino.to_openvino(self.source.path.read_bytes())
        if plan.precision == "float":
            openvino.save(model, out / "model.xml", half=True)
            return
        quantized = openvino.quantize(
            model,
            self.source.zone,
            self.source.batches(self.calibrate),
            keep_float=self.source.nodes_of(plan.float_blocks),
        )
        openvino.save(quantized, out / "model.xml")

    def _write_refitted(self, plan: Plan, out: Path) -> None:
        files = self.make(replace(plan, refit=False))
        stage = f"{self.device_class.name}: refitting the head"
        with self._progress.stage(stage, len(self.calibrate)) as tick:
            refit_engine(
                files[0].path,
                self.source,
                self.source.batches(self.calibrate),
                out,
                tick,
                literal=not engines.is_here(self.device_class.runtime.name),
            )

    def _observed(self) -> Observations:
        if self._seen is None:
            inputs = {"float": self.source.sha256, "images": digest_of(self.calibrate)}
            folder, _ = self._cache.files("observed", {**inputs, "method": _METHOD}, self._observe)
            self._seen = Observations.load(folder / "seen.npz")
        return self._seen

    def _observe(self, out: Path) -> None:
        with self._progress.stage("calibrating", len(self.calibrate)) as tick:
            batches = self.source.batches(self.calibrate)
            observe(self.source.onnx, batches, tick).save(out / "seen.npz")


def engine_files(folder: Path) -> tuple[EngineFile, ...]:
    """Returns the engine files that lie in a folder."""
    onnx, xml = folder / "model.onnx", folder / "model.xml"
    if onnx.is_file():
        return (EngineFile("engine", onnx),)
    return EngineFile("engine", xml), EngineFile("engine-weights", xml.with_suffix(".bin"))


def copy_engine(files: tuple[EngineFile, ...], out: Path) -> tuple[EngineFile, ...]:
    """Copies an engine under the names that a build has."""
    out.mkdir(parents=True, exist_ok=True)
    copies = []
    for each in files:
        target = out / f"model{each.path.suffix}"
        shutil.copyfile(each.path, target)
        copies.append(EngineFile(each.role, target))
    return tuple(copies)
