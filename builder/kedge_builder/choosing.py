"""The engine of one class: candidates are measured on the select split, the ladder is climbed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from kedge_builder.judge.ladder import Rung, aim_for, next_rung
from kedge_builder.measure import engines, machine
from kedge_builder.measure.engines import engine_hash
from kedge_builder.measure.latency import Timed, interleaved
from kedge_builder.models import checkpoint
from kedge_builder.models.weights import Trained
from kedge_builder.models.weights import load as load_weights
from kedge_builder.quantize.candidates import Candidate, choose, measured, plans_for, rungs_for
from kedge_builder.quantize.mixed import Mixed, Sensitivity, greedy, measure_blocks
from kedge_builder.quantize.plan import Plan
from kedge_builder.quantize.quantizer import Quantizer
from kedge_builder.quantize.source import Source, digest_of
from kedge_builder.workshop import Workshop
from kedge_shared.device_classes import DeviceClass

#: For the time that one block costs: some thirty frames of each engine at 640 px.
_BLOCK_SECONDS = 3.0
_TIMED_FRAMES = 4


@dataclass(frozen=True)
class Chosen:
    """What a class gets, and everything that was tried for it.

    Attributes:
        candidate: The engine.
        source: The float model it was made from.
        reason: Why it was taken.
        tried: All candidates, in order.
        rungs: Climbed, because plain INT8 lost more than was aimed at.
        aim: Loss on the select images that ends the climb, a fraction.
        mixed: Sensitivities and steps, if float blocks were tried.
    """

    candidate: Candidate
    source: Source
    reason: str
    tried: tuple[Candidate, ...]
    rungs: tuple[Rung, ...]
    aim: float
    mixed: Mixed | None = None


class Chooser:
    """Chooses for one class and one float model.

    Args:
        workshop: Of the build.
        device_class: What is chosen for.
        source: The float model; drops count from it.
        trained: The same in torch, for QAT.
        rungs: What may be tried when plain INT8 loses too much.
    """

    def __init__(
        self,
        workshop: Workshop,
        device_class: DeviceClass,
        source: Source,
        trained: Trained,
        rungs: Sequence[Rung],
    ) -> None:
        self._shop, self._class, self._trained = workshop, device_class, trained
        self._allowed = rungs_for(device_class, rungs)
        self._source = source
        self._survey = workshop.surveyor(device_class, source)
        self._quantizer = workshop.quantizer(device_class, source)
        self._tried: list[Candidate] = []

    def choose(self) -> Chosen:
        """Measures the plain form, then climbs while it loses too much and the recipe allows."""
        seed = self._shop.options.seed
        aim = aim_for(self._class.budgets.accuracy_drop)
        pick = choose([self._try(each) for each in plans_for(self._class)], seed=seed)
        taken, source, reason = self._refitted(pick.taken), self._source, pick.reason
        rungs: list[Rung] = []
        mixed = None
        while rung := next_rung(
            self._allowed, rungs, drop=taken.drop.estimate, low=taken.drop.low, aim=aim
        ):
            rungs.append(rung)
            if rung == "mixed":
                mixed = self._mix(pick.taken, aim)
                found, of = self._refitted(mixed.taken), source
            elif rung == "qat":
                found, of = self._adapted(taken.plan)
            else:
                found, of = self._try(Plan(precision="float")), self._source
            if found is not taken and found.drop.estimate < taken.drop.estimate:
                taken, source = found, of
                plain = "FP16" if self._class.form == "float16" else "plain INT8"
                reason = f"{plain} lost more than {aim * 100:.2f} points, {_SAID[rung]}"
        return Chosen(taken, source, reason, tuple(self._tried), tuple(rungs), aim, mixed)

    def _try(self, plan: Plan, quantizer: Quantizer | None = None) -> Candidate:
        with self._shop.progress.stage(f"{self._class.name}: {plan.name}"):
            reference = self._survey.float_survey("select")
            make = (quantizer or self._quantizer).make
            found = measured(
                plan, make, self._survey.survey, reference, seed=self._shop.options.seed
            )
        if not any(found.files == each.files for each in self._tried):
            self._tried.append(found)
        return found

    def _refitted(self, taken: Candidate, quantizer: Quantizer | None = None) -> Candidate:
        """Returns the candidate with its last convolutions refitted, where that is the better."""
        # In an NPU's model the last convolutions are quantized too: there is nothing to refit.
        if taken.plan.precision != "int8" or self._class.form == "rknn-int8":
            return taken
        found = self._try(replace(taken.plan, refit=True), quantizer)
        return choose([taken, found], seed=self._shop.options.seed).taken

    def _mix(self, base: Candidate, aim: float) -> Mixed:
        blocks = [each.name for each in self._source.blocks]
        stage = f"{self._class.name}: sensitivity of {len(blocks)} blocks"
        with self._shop.progress.stage(stage, len(blocks)) as tick:
            rows = self._sensitivity(base, blocks, tick)
        return greedy(base, rows, self._try, aim=aim)

    def _sensitivity(
        self, base: Candidate, blocks: Sequence[str], tick: Callable[[], None]
    ) -> tuple[Sensitivity, ...]:
        """Measures the blocks; where the simulator would take hours, on a graph that stands in."""
        if not engines.is_simulated(self._class.runtime.name):
            return measure_blocks(base, blocks, self._try, self._added_ms, tick)
        twin = replace(self._class, form="qdq-u8s8")
        other = Chooser(self._shop, twin, self._source, self._trained, ())
        return measure_blocks(other._try(base.plan), blocks, other._try, self._added_ms, tick)

    def _added_ms(self, base: Candidate, other: Candidate) -> float | None:
        if not engines.is_here(self._class.runtime.name):
            return None
        inputs = {
            "engines": [engine_hash(each.files) for each in (base, other)],
            "runtime": [engines.version(self._class.runtime.name), self._class.threads],
            "machine": machine.describe(),
            "method": engines.METHOD,
        }
        return self._shop.cache.value(
            "block-time", inputs, float, lambda: self._difference_ms(base, other)
        )

    def _difference_ms(self, base: Candidate, other: Candidate) -> float:
        frames = [each.frame() for each in self._shop.data.select[:_TIMED_FRAMES]]
        pair = [self._timed(each) for each in (base, other)]
        before, after = interleaved(pair, frames, seconds=_BLOCK_SECONDS)
        return after.engine_p50 - before.engine_p50

    def _timed(self, candidate: Candidate) -> Timed:
        engine = engines.load(self._class.runtime.name, candidate.files, self._class.threads)
        return Timed(engine, self._source.given, self._source.read)

    def _adapted(self, plan: Plan) -> tuple[Candidate, Source]:
        from kedge_builder.compress.qat import QatOptions, adapt

        shop, size = self._shop, self._source.given.height
        options = QatOptions(
            size=size, weight_bits=7 if self._class.reduce_range else 8, seed=shop.options.seed
        )

        def train(out: Path) -> None:
            found = adapt(self._trained, shop.data.calibrate, options, shop.progress)
            checkpoint.save(found.model, out / "adapted.pt", size=size)

        inputs = {
            "weights": self._trained.sha256,
            "images": digest_of(shop.data.calibrate),
            "options": options,
        }
        folder, _ = shop.cache.files("adapted", inputs, train)
        source = shop.source(size, load_weights(folder / "adapted.pt"), opset=self._class.opset)
        quantizer = shop.quantizer(self._class, source)
        found = self._try(replace(plan, float_blocks=(), refit=False, trained=True), quantizer)
        return self._refitted(found, quantizer), source


_SAID: dict[Rung, str] = {
    "mixed": "so the blocks that lose most for the time they save stay float",
    "qat": "so the weights were trained for a moment to bear rounding",
    "float": "so it stays float",
}


def plan_names(candidates: Sequence[Candidate]) -> list[dict[str, object]]:
    """Returns what ``report.json`` says of the candidates."""
    return [
        {
            "name": each.plan.name,
            "select_map50_95": round(each.survey.accuracy.map50_95, 5),
            "drop": round(each.drop.estimate, 5),
            "drop_low": round(each.drop.low, 5),
            "drop_high": round(each.drop.high, 5),
            "distortion": round(each.survey.distortion, 5),
            "bytes": sum(file.path.stat().st_size for file in each.files),
        }
        for each in candidates
    ]
