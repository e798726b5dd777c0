"""One class of a build: choose, measure on the gate split, judge, write."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from kedge_builder.compilers.step import Plans, compile_plans
from kedge_builder.judge import golden_set, predecessor
from kedge_builder.judge.acceptance import Decision, judge
from kedge_builder.judge.golden_set import GoldenSet
from kedge_builder.judge.terms import Compared, stated, warning
from kedge_builder.measure import engines, machine, memory, remote
from kedge_builder.measure.engines import Engine, EngineFile
from kedge_builder.measure.evaluate import drop_interval
from kedge_builder.measure.latency import Latency, Timed, interleaved, pinned
from kedge_builder.quantize import half
from kedge_builder.quantize.candidates import Candidate
from kedge_builder.quantize.quantizer import copy_engine
from kedge_builder.quantize.source import Source
from kedge_builder.report import contents as report
from kedge_builder.report import output
from kedge_builder.report.contents import Measurement
from kedge_builder.tune import Tuned, choose
from kedge_builder.workshop import Workshop
from kedge_shared.bench import Speed
from kedge_shared.device_classes import DeviceClass
from kedge_shared.manifest import Provenance
from kedge_shared.timing import speed
from kedge_shared.vision import decode, prepare

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


@dataclass(frozen=True)
class Timings:
    """Frame times of both sides and where they were taken.

    Attributes:
        before: Float; ``None``: not measured.
        after: Built; likewise.
        speed: Built against float, in rounds of one run.
        where: Machine.
        memory_mb: That loading the built engine added.
    """

    before: Latency | None
    after: Latency | None
    speed: Speed | None
    where: str
    memory_mb: float | None


class ClassBuild:
    """Builds for one class.

    Args:
        workshop: Of the build.
        device_class: What for.
        golden: Golden frames.
        bench: Boards that measure instead of this machine, or ``None``.
    """

    def __init__(
        self,
        workshop: Workshop,
        device_class: DeviceClass,
        golden: GoldenSet,
        bench: remote.Bench | None,
    ) -> None:
        self._shop, self._class, self._golden, self._bench = workshop, device_class, golden, bench
        self._started = time.monotonic()
        self._baseline = workshop.source(
            workshop.options.size(device_class), opset=device_class.opset
        )
        previous = workshop.options.previous
        self._older = predecessor.find(previous, device_class.name) if previous else None

    def run(self, work: Path, out: Path) -> BuildResult:
        """Builds into ``out``; ``work`` holds the engine until then."""
        shop, options, name = self._shop, self._shop.options, self._class.name
        tuned = choose(shop, self._class, self._baseline)
        source = tuned.chosen.source
        files = copy_engine(tuned.chosen.candidate.files, work / name)
        plans = compile_plans(self._class, files, shop.progress)
        measured = self._measure(tuned, files, plans)
        decision = judge(measured.figures, self._class.budgets, options.overrides)
        compared = self._compared(measured)
        manifest = output.make_manifest(
            options, self._class, source, files, plans, measured, decision, self._provenance(tuned),
            stated(options.terms, compared) if compared else options.terms,
        )  # fmt: skip
        more = self._more(tuned, measured, manifest.provenance) | {"compiled": plans.section}
        if compared:
            more["previous"] = asdict(compared)
            more["notes"] += [each for each in [warning(options.terms, compared)] if each]
        body = report.body(manifest, decision, measured, more)
        with shop.progress.stage(f"{name}: writing"):
            page = report.page(body, self._examples(measured, source), source.read.classes)
            output.write_class(
                out / name, (*files, *plans.files), manifest, measured, decision, body, page,
                shop.data.calibrate,
            )  # fmt: skip
        return BuildResult(name, options.out / name, decision, body)

    def _measure(
        self, tuned: Tuned, files: tuple[EngineFile, ...], plans: Plans
    ) -> output.Measured:
        shop, source, candidate = self._shop, tuned.chosen.source, tuned.chosen.candidate
        before = shop.surveyor(self._class, self._baseline).float_survey("gate").accuracy
        after = (
            shop.surveyor(self._class, source).survey(candidate.plan.name, files, "gate").accuracy
        )
        with shop.progress.stage(f"{self._class.name}: interval of the drop"):
            drop = drop_interval(before, after, seed=shop.options.seed)
        reference, built = self._float_engine(), self._engine(files)
        timings = self._timings(source, files)
        golden = self._golden
        found = golden_set.record(built, golden, source.given, source.read)
        floats = golden_set.record(reference, golden, self._baseline.given, self._baseline.read)
        # A simulator has one way of rounding; silicon is nearer to it than float is.
        literal = (
            floats
            if self._simulation(candidate)
            else golden_set.record(
                self._engine(files, literal=True), golden, source.given, source.read
            )
        )
        float_bytes, size = (
            sum(each.path.stat().st_size for each in group)
            for group in (self._float_files(), files)
        )
        classes = source.read.classes
        return output.Measured(
            before=Measurement(
                before, timings.before, float_bytes, golden_set.score(floats, golden, classes)
            ),
            after=Measurement(
                after,
                timings.after,
                size + plans.size_bytes,
                golden_set.score(found, golden, classes),
            ),
            drop=drop,
            speed=timings.speed,
            where=timings.where,
            memory_mb=timings.memory_mb,
            references=dict(zip((f.sha256 for f in golden.policy.golden), found, strict=True)),
            tolerances=golden_set.tolerances(found, literal, source.read.conf),
            engines=(
                Timed(reference, self._baseline.given, self._baseline.read),
                Timed(built, source.given, source.read),
            ),
        )

    def _compared(self, measured: output.Measured) -> Compared | None:
        """Compares with the build that boards run now."""
        if self._older is None:
            return None
        shop, images = self._shop, self._shop.data.gate
        stage = f"{self._class.name}: beside release {self._older.manifest.release}"
        with shop.progress.stage(stage, len(images)) as tick:
            return predecessor.compare(
                self._older, measured.engines[1], shop.options.terms, images, tick,
                threads=self._class.threads, seed=shop.options.seed,
            )  # fmt: skip

    def _timings(self, source: Source, files: tuple[EngineFile, ...]) -> Timings:
        shop, name = self._shop, self._class.name
        frames = [each.frame() for each in shop.data.gate[:_TIMED_FRAMES]]
        seconds = shop.options.latency_seconds
        if self._bench is not None:
            # A board times engines of one input; a smaller input's ratio is against its own float.
            floats = (EngineFile("engine", source.path),)
            found = remote.measure_remotely(
                self._bench, self._class, files, floats, source.given, source.read, frames,
                shop.progress, seconds=seconds,
            )  # fmt: skip
            return Timings(found.reference, found.built, found.speed, found.where, found.memory_mb)
        if not engines.is_here(self._class.runtime.name) or not machine.is_of(self._class.arch):
            return Timings(None, None, None, self._where(), None)
        stage = f"{name}: latency, float and built in turn"
        with shop.progress.stage(stage), pinned(self._class.threads):
            pair = [
                Timed(self._float_engine(), self._baseline.given, self._baseline.read),
                Timed(self._engine(files), source.given, source.read),
            ]
            slow, fast = interleaved(pair, frames, seconds=seconds)
        added = memory.added_mb(
            self._class.runtime.name, files, source.given.height, self._class.threads
        )
        return Timings(slow, fast, speed(slow, fast), machine.describe(), added)

    def _simulation(self, candidate: Candidate) -> str:
        """Says what stood in for the board's arithmetic; empty if nothing did."""
        runtime = self._class.runtime.name
        if engines.is_simulated(runtime):
            told = engines.version(runtime)
            return f"The built engine's accuracy was {told}; no board was asked."
        return half.SIMULATED if candidate.plan.precision == "half" else ""

    def _where(self) -> str:
        told = "a simulator on " if engines.is_simulated(self._class.runtime.name) else ""
        return told + machine.describe()

    def _engine(self, files: tuple[EngineFile, ...], *, literal: bool = False) -> Engine:
        return engines.load(self._class.runtime.name, files, self._class.threads, literal=literal)

    def _float_engine(self) -> Engine:
        return self._engine(self._float_files())

    def _float_files(self) -> tuple[EngineFile, ...]:
        return (EngineFile("engine", self._baseline.path),)

    def _provenance(self, tuned: Tuned) -> Provenance:
        plan = tuned.chosen.candidate.plan
        more = {"plan": plan.name, "float_blocks": ", ".join(plan.float_blocks) or "none"}
        return Provenance(
            weights_sha256=self._shop.trained.sha256,
            data_sha256=self._shop.data.sha256,
            recipe=self._shop.options.recipe(self._class) | more,
            tools=machine.tools(),
        )

    def _examples(self, measured: output.Measured, source: Source) -> list[report.Example]:
        frames = [each.frame() for each in self._shop.data.gate[:_EXAMPLES]]

        def found(timed: Timed, frame: Any) -> Any:
            batch, place = prepare(frame, timed.given)
            return decode(timed.engine.infer(batch), place, timed.read)

        before, after = measured.engines
        return [(frame, found(before, frame), found(after, frame)) for frame in frames]

    def _more(
        self, tuned: Tuned, measured: output.Measured, provenance: Provenance
    ) -> dict[str, Any]:
        runtime, data = self._class.runtime.name, self._shop.data
        return {
            "runtime": {"name": runtime, "version": engines.version(runtime)},
            "machine": measured.where,
            "threads": self._class.threads,
            "calibration": report.calibration(data, tuned.chosen),
            "precision": report.precision(tuned.chosen, self._class.form),
            "search": tuned.section,
            "notes": [*data.notes, *filter(None, [self._simulation(tuned.chosen.candidate)])],
            "accuracy_floor": self._golden.policy.accuracy_floor,
            "provenance": {
                "weights": provenance.weights_sha256,
                "data": provenance.data_sha256,
                **provenance.recipe,
                **provenance.tools,
            },
            "seconds": round(time.monotonic() - self._started, 1),
            "peak_memory_mb": round(machine.peak_memory_mb(), 1),
        }
