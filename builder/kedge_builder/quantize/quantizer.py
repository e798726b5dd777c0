"""Carries out a plan for one device class: from the float model to engine files, once."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

from kedge_builder.cache import Cache
from kedge_builder.compilers import rknn
from kedge_builder.compilers.environment import python_of
from kedge_builder.data.datasets import Sample
from kedge_builder.measure import engines
from kedge_builder.measure.engines import EngineFile
from kedge_builder.progress import Progress
from kedge_builder.quantize import half, ncnn, openvino, qdq
from kedge_builder.quantize.float_weights import wants_float_weights
from kedge_builder.quantize.observe import Observations, observe
from kedge_builder.quantize.plan import Plan
from kedge_builder.quantize.refitting import refit_engine
from kedge_builder.quantize.source import Source, digest_of
from kedge_shared.device_classes import DeviceClass, QuantizationForm

#: Version of what this package itself does to a model; part of every key.
_METHOD = 4
#: Forms whose float engines are no ONNX either.
_OWN_FLOAT = frozenset({"nncf-mixed", "rknn-int8", "ncnn-float"})


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
        form = self.device_class.form
        if plan.precision == "float" and form not in _OWN_FLOAT:
            return (EngineFile("engine", self.source.path),)
        inputs = {
            "float": self.source.sha256,
            "images": digest_of(self.calibrate),
            "form": form,
            "reduce_range": self.device_class.reduce_range,
            "float_weights": wants_float_weights(self.device_class),
            "plan": plan,
            "method": _METHOD,
        }
        write = _WRITERS[form](self)
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
            float_weights=wants_float_weights(self.device_class),
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

    def _write_half(self, plan: Plan, out: Path) -> None:
        (out / "model.onnx").write_bytes(half.marked(self.source.onnx))

    def _write_ncnn(self, plan: Plan, out: Path) -> None:
        with self._progress.stage(f"{self.device_class.name}: converting for ncnn"):
            ncnn.write(self.source.path, self.source.given.height, out / "model.param")

    def _write_rknn(self, plan: Plan, out: Path) -> None:
        source, device = self.source, self.device_class
        python = python_of(rknn.PINS, self._progress)
        folder = out / f"model{rknn.SIMULATION}"
        step = "build_float" if plan.precision == "float" else "build"
        recipe = rknn.Recipe(
            step=step, target=device.soc[0], divisor=1 / source.given.scale, given=source.given,
            read=source.read, float_tensors=rknn.tensors_of(source, plan.float_blocks),
        )  # fmt: skip
        shutil.copytree(self._calibrated_rknn(python, plan, recipe.target), folder)
        with self._progress.stage(f"{device.name}: {plan.name}, compiling"):
            rknn.build(python, recipe, out / "model.rknn")

    def _calibrated_rknn(self, python: Path, plan: Plan, target: str) -> Path:
        algorithm = rknn.ALGORITHMS[plan.calibrator or "minmax"]
        inputs = {
            "float": self.source.sha256, "images": digest_of(self.calibrate), "target": target,
            "algorithm": algorithm, "toolkit": rknn.VERSION, "method": _METHOD,
        }  # fmt: skip

        def make(out: Path) -> None:
            stage = f"{self.device_class.name}: {plan.calibrator}, calibrating"
            with self._progress.stage(stage, len(self.calibrate)) as tick:
                batches = self.source.batches(self.calibrate)
                rknn.calibrate(python, self.source, batches, algorithm, target, out, tick)

        return self._cache.files("rknn-calibrated", inputs, make)[0]

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


_WRITERS: Mapping[QuantizationForm, Callable[[Quantizer], Callable[[Plan, Path], None]]] = {
    "qdq-u8s8": lambda self: self._write_qdq,
    "qdq-s8s8": lambda self: self._write_qdq,
    "nncf-mixed": lambda self: self._write_openvino,
    "float16": lambda self: self._write_half,
    "rknn-int8": lambda self: self._write_rknn,
    "ncnn-float": lambda self: self._write_ncnn,
}


def engine_files(folder: Path) -> tuple[EngineFile, ...]:
    """Returns the engine files that lie in a folder."""
    for name in ("model.onnx", "model.rknn"):
        if (folder / name).is_file():
            return (EngineFile("engine", folder / name),)
    pairs = (folder / name for name in ("model.xml", "model.param"))
    first = next(each for each in pairs if each.is_file())
    return EngineFile("engine", first), EngineFile("engine-weights", first.with_suffix(".bin"))


def copy_engine(files: tuple[EngineFile, ...], out: Path) -> tuple[EngineFile, ...]:
    """Copies an engine under the names that a build has."""
    out.mkdir(parents=True, exist_ok=True)
    copies = []
    for each in files:
        target = out / f"model{each.path.suffix}"
        shutil.copyfile(each.path, target)
        simulation = each.path.with_suffix(rknn.SIMULATION)
        if simulation.is_dir():
            shutil.copytree(simulation, target.with_suffix(rknn.SIMULATION))
        copies.append(EngineFile(each.role, target))
    return tuple(copies)
