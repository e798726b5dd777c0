"""One build from end to end: export, quantize, measure, judge, write. Wires; decides nothing."""

from __future__ import annotations

import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kedge_builder.data.calibration_report import as_report
from kedge_builder.data.curation import CurationOptions
from kedge_builder.data.curation_step import curated, steps
from kedge_builder.data.datasets import Data, read_data
from kedge_builder.data.features import Backbone
from kedge_builder.judge import golden_set
from kedge_builder.judge.acceptance import Decision, judge
from kedge_builder.judge.golden_set import GoldenSet
from kedge_builder.measure import engines, machine, memory
from kedge_builder.measure.engines import Engine, EngineFile
from kedge_builder.measure.evaluate import Accuracy, drop_interval, evaluate
from kedge_builder.measure.latency import interleaved
from kedge_builder.models import export
from kedge_builder.models.weights import Trained
from kedge_builder.models.weights import load as load_weights
from kedge_builder.progress import Progress
from kedge_builder.quantize import candidates
from kedge_builder.quantize.candidates import Candidate, Source
from kedge_builder.quantize.floatzone import find_float_zone
from kedge_builder.quantize.qdq import prepare_float
from kedge_builder.recipe import BuildOptions
from kedge_builder.report import contents as report
from kedge_builder.report import output
from kedge_builder.report.contents import Measurement
from kedge_shared.detections import Array
from kedge_shared.device_classes import DeviceClass
from kedge_shared.errors import InputError
from kedge_shared.manifest import InputSpec, OutputSpec, Provenance

_EXAMPLES = 4
_TIMED_FRAMES = 16


@dataclass(frozen=True)
class BuildResult:
    """What came of one class.

    Attributes:
        device_class: Name.
        folder: Where it was written.
        decision: The verdict.
        report: Contents of ``report.json``.
    """

    device_class: str
    folder: Path
    decision: Decision
    report: dict[str, Any]


def run(options: BuildOptions, progress: Progress) -> list[BuildResult]:
    """Builds for every class of ``options``.

    Raises:
        InputError: Options, weights, data or policy cannot be used; nothing is written.
        StorageError: The disk is full or cannot be written.
    """
    started = time.monotonic()
    options.check()
    with (
        output.scratch(options.out) as scratch,
        tempfile.TemporaryDirectory(prefix="kedge-build-") as work,
    ):
        with progress.stage("reading weights and data"):
            trained = load_weights(options.weights)
            data = read_data(options.data, seed=options.seed, gate_limit=options.images)
            _check_classes(trained, data)
        data = _curated(trained, data, options, progress)
        build = _Build(options, trained, data, Path(work), progress)
        build.golden = build.open_policy()
        results = [build.for_class(each, scratch, started) for each in options.classes]
        if build.golden.proposed:
            golden_set.write_policy(build.golden, scratch / "policy")
        output.publish(scratch, options.out)
    return results


def _curated(trained: Trained, data: Data, options: BuildOptions, progress: Progress) -> Data:
    wanted = CurationOptions(seed=options.seed)
    with progress.stage("curating calibration images", steps(data, wanted)) as tick:
        return curated(data, Backbone(trained.model), wanted, tick)


def _check_classes(trained: Trained, data: Data) -> None:
    if len(trained.classes) != len(data.classes):
        raise InputError(
            f"the model has {len(trained.classes)} classes, the data {len(data.classes)}",
            "give the data that it was trained for",
        )


class _Build:
    """State of one run: what several classes share is made once."""

    def __init__(
        self, options: BuildOptions, trained: Trained, data: Data, work: Path, progress: Progress
    ) -> None:
        self.options, self.trained, self.data = options, trained, data
        self.work, self.progress = work, progress
        self.golden: GoldenSet
        self._sources: dict[int, Source] = {}
        self._floats: dict[tuple[str, int, int], tuple[Engine, Accuracy]] = {}

    def open_policy(self) -> GoldenSet:
        """Reads the policy, or proposes one with a floor under the float model's label score."""
        if self.options.policy:
            return golden_set.load_policy(self.options.policy, self.options.model)
        from dataclasses import replace

        golden = golden_set.propose(self.data, self.options.model, self.work / "golden")
        first = self.options.classes[0]
        source = self.source(self.options.size(first))
        found = golden_set.record(
            self._float_engine(first, source), golden, source.given, source.read
        )
        floor = golden_set.floor_under(golden_set.score(found, golden, self.trained.classes))
        return replace(golden, policy=replace(golden.policy, accuracy_floor=floor))

    def source(self, size: int) -> Source:
        """Exports the float model at a size, once."""
        if size not in self._sources:
            with self.progress.stage(f"exporting ONNX at {size} px"):
                graph = prepare_float(export.to_onnx(self.trained.model, size))
                zone = find_float_zone(graph)
            path = self._float_path(size)
            path.write_bytes(graph.SerializeToString())
            head = export.heads_of(self.trained.model)[0]
            read = OutputSpec(head=head, classes=self.trained.classes)
            self._sources[size] = Source(graph, zone, InputSpec(height=size, width=size), read)
        return self._sources[size]

    def for_class(self, device_class: DeviceClass, out: Path, started: float) -> BuildResult:
        """Builds, measures, judges and writes one class."""
        source = self.source(self.options.size(device_class))
        scratch = self.work / device_class.name
        scratch.mkdir()
        with self.progress.stage(f"{device_class.name}: quantizing"):
            chosen, tried = candidates.build(
                device_class, source, self.data, scratch, self.progress
            )
        measured = self._measure(device_class, source, chosen)
        decision = judge(measured.figures, device_class.budgets, self.options.overrides)
        manifest = output.make_manifest(
            self.options,
            device_class,
            source,
            chosen.files,
            measured,
            decision,
            self._provenance(device_class),
        )
        more = self._more(device_class, source, chosen, tried, manifest.provenance, started)
        contents = report.body(
            manifest, decision, measured.before, measured.after, measured.drop, more
        )
        with self.progress.stage(f"{device_class.name}: writing"):
            page = report.page(
                contents,
                self._layers(source),
                self._examples(measured, source),
                source.read.classes,
            )
            output.write_class(
                out / device_class.name, chosen.files, manifest, measured, decision, contents, page
            )
        final = self.options.out / device_class.name
        return BuildResult(device_class.name, final, decision, contents)

    def _measure(
        self, device_class: DeviceClass, source: Source, chosen: Candidate
    ) -> output.Measured:
        runtime, threads, name = device_class.runtime.name, device_class.threads, device_class.name
        reference = self._float_engine(device_class, source)
        before = self._float_accuracy(device_class, source)
        built = engines.load(runtime, chosen.files, threads)
        with self.progress.stage(f"{name}: accuracy", len(self.data.gate)) as tick:
            after = evaluate(built, self.data.gate, source.given, source.read, tick)
        with self.progress.stage(f"{name}: interval of the drop"):
            drop = drop_interval(before, after, seed=self.options.seed)
        with self.progress.stage(f"{name}: latency, float and INT8 in turn"):
            frames = [each.frame() for each in self.data.gate[:_TIMED_FRAMES]]
            slow, fast = interleaved(
                [reference, built], frames, source.given, source.read,
                seconds=self.options.latency_seconds,
            )  # fmt: skip
        golden = self.golden
        found = golden_set.record(built, golden, source.given, source.read)
        literal = engines.load(runtime, chosen.files, threads, literal=True)
        other = golden_set.record(literal, golden, source.given, source.read)
        scores = (
            golden_set.score(
                golden_set.record(reference, golden, source.given, source.read),
                golden,
                source.read.classes,
            ),
            golden_set.score(found, golden, source.read.classes),
        )
        size = sum(each.path.stat().st_size for each in chosen.files)
        float_size = self._float_path(source.given.height).stat().st_size
        return output.Measured(
            before=Measurement(before, slow, float_size, scores[0]),
            after=Measurement(after, fast, size, scores[1]),
            drop=drop,
            memory_mb=memory.added_mb(runtime, chosen.files, source.given.height, threads),
            references=dict(zip((f.sha256 for f in golden.policy.golden), found, strict=True)),
            tolerances=golden_set.tolerances(found, other, source.read.conf),
            engines=(reference, built),
        )

    def _float_path(self, size: int) -> Path:
        return self.work / f"float-{size}.onnx"

    def _float_engine(self, device_class: DeviceClass, source: Source) -> Engine:
        return engines.load(
            device_class.runtime.name,
            [EngineFile("engine", self._float_path(source.given.height))],
            device_class.threads,
        )

    def _float_accuracy(self, device_class: DeviceClass, source: Source) -> Accuracy:
        key = (device_class.runtime.name, source.given.height, device_class.threads)
        if key not in self._floats:
            engine = self._float_engine(device_class, source)
            stage = f"{device_class.name}: accuracy of float"
            with self.progress.stage(stage, len(self.data.gate)) as tick:
                found = evaluate(engine, self.data.gate, source.given, source.read, tick)
            self._floats[key] = engine, found
        return self._floats[key][1]

    def _provenance(self, device_class: DeviceClass) -> Provenance:
        return Provenance(
            weights_sha256=self.trained.sha256,
            data_sha256=self.data.sha256,
            recipe=self.options.recipe(device_class),
            tools=machine.tools(),
        )

    def _layers(self, source: Source) -> list[report.Layer]:
        from onnxruntime.quantization.registry import QDQRegistry

        return report.layers_of(source.onnx, source.zone, set(QDQRegistry))

    def _examples(self, measured: output.Measured, source: Source) -> list[report.Example]:
        from kedge_shared.vision import decode, prepare

        def found(engine: Engine, frame: Any) -> Array:
            batch, place = prepare(frame, source.given)
            return decode(engine.infer(batch), place, source.read)

        frames = [each.frame() for each in self.data.gate[:_EXAMPLES]]
        before, after = measured.engines
        return [(frame, found(before, frame), found(after, frame)) for frame in frames]

    def _more(
        self,
        device_class: DeviceClass,
        source: Source,
        chosen: Candidate,
        tried: tuple[Candidate, ...],
        provenance: Provenance,
        started: float,
    ) -> dict[str, Any]:
        runtime = device_class.runtime.name
        return {
            "runtime": {"name": runtime, "version": engines.version(runtime)},
            "machine": machine.describe(),
            "threads": device_class.threads,
            "calibration": {
                **(as_report(self.data.calibration) if self.data.calibration else {}),
                "chosen": chosen.name,
                "candidates": report.candidate_rows(tried),
            },
            "layers": [vars(each) for each in self._layers(source)],
            "notes": list(self.data.notes),
            "accuracy_floor": self.golden.policy.accuracy_floor,
            "provenance": {
                "weights": provenance.weights_sha256,
                "data": provenance.data_sha256,
                **provenance.recipe,
                **provenance.tools,
            },
            "seconds": round(time.monotonic() - started, 1),
            "peak_memory_mb": round(machine.peak_memory_mb(), 1),
        }
