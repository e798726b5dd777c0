"""Accuracy of an engine on a split, with its raw outputs, kept by content."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from kedge_builder.cache import Cache
from kedge_builder.data.datasets import Data
from kedge_builder.measure import engines, machine
from kedge_builder.measure.distortion import distortion
from kedge_builder.measure.engines import Engine, EngineFile
from kedge_builder.measure.evaluate import Accuracy, evaluate, load_accuracy, save_accuracy
from kedge_builder.progress import Progress
from kedge_builder.quantize.source import Source, Split, labelled_digest, samples_of
from kedge_shared.detections import Array
from kedge_shared.device_classes import DeviceClass

#: Frames whose raw outputs are kept for distortion: 2.8 MB each for 80 classes at 640 px.
_KEPT = 32


@dataclass(frozen=True)
class Survey:
    """What an engine did on a split.

    Attributes:
        accuracy: Against the labels.
        distortion: Against float's raw outputs; zero for float itself.
    """

    accuracy: Accuracy
    distortion: float


class Surveyor:
    """Runs engines of one class over the splits of one data set.

    Args:
        device_class: Runtime and threads.
        source: Input, output and the float model that distortion is counted from.
        data: The splits.
        cache: Keeps what was measured on this processor.
        progress: Told of each image.
    """

    def __init__(
        self, device_class: DeviceClass, source: Source, data: Data, cache: Cache,
        progress: Progress,
    ) -> None:  # fmt: skip
        self._class, self._source, self._data = device_class, source, data
        self._cache, self._progress = cache, progress
        self._reference: list[Array] = []

    def survey(self, name: str, files: Sequence[EngineFile], split: Split) -> Survey:
        """Returns accuracy and distortion of an engine on ``select`` or ``gate``."""
        runtime = self._class.runtime.name
        inputs = {
            "engine": engines.engine_hash(files),
            "float": self._source.sha256,
            "runtime": [runtime, engines.version(runtime), self._class.threads],
            "split": labelled_digest(self._data, split),
            "read": self._source.read,
            "method": engines.METHOD,
            "machine": machine.describe(),
        }

        def measure(out: Path) -> None:
            found = self._measure(name, files, split)
            save_accuracy(found.accuracy, out / "accuracy.npz")
            (out / "distortion").write_text(repr(found.distortion))

        folder, _ = self._cache.files("surveyed", inputs, measure)
        accuracy = load_accuracy(folder / "accuracy.npz")
        return Survey(accuracy, float((folder / "distortion").read_text()))

    def float_survey(self, split: Split) -> Survey:
        """Returns the float model's accuracy."""
        return self.survey("float", (EngineFile("engine", self._source.path),), split)

    def _measure(self, name: str, files: Sequence[EngineFile], split: Split) -> Survey:
        samples = samples_of(self._data, split)
        engine = Recorder(engines.load(self._class.runtime.name, files, self._class.threads))
        stage = f"{self._class.name}: {name} on {len(samples)} {split} images"
        with self._progress.stage(stage, len(samples)) as tick:
            found = evaluate(engine, samples, self._source.given, self._source.read, tick)
        floats = self._floats(split)
        return Survey(found, distortion(floats, engine.kept[: len(floats)]))

    def _floats(self, split: Split) -> list[Array]:
        if split != "select":
            return []
        if not self._reference:
            files = (EngineFile("engine", self._source.path),)
            engine = engines.load(self._class.runtime.name, files, 0)
            samples = self._data.select[:_KEPT]
            self._reference = [engine.infer(each) for each in self._source.batches(samples)]
        return self._reference


class Recorder:
    """An engine that keeps its first raw outputs.

    Attributes:
        kept: Outputs of the first frames.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.kept: list[Array] = []

    def infer(self, batch: Array) -> Array:
        """Runs one batch."""
        raw = self._engine.infer(batch)
        if len(self.kept) < _KEPT:
            self.kept.append(np.array(raw))
        return raw
