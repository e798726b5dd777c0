"""``--tune``: the search's points built and measured for real, over one pruning chain."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace
from typing import Any

from kedge_builder.choosing import Chooser, Chosen
from kedge_builder.compress.chain import PruneOptions, PruneStep
from kedge_builder.measure import engines, machine
from kedge_builder.measure.engines import EngineFile
from kedge_builder.measure.evaluate import drop_interval
from kedge_builder.measure.latency import Latency, Timed, interleaved, pinned
from kedge_builder.models.weights import Trained
from kedge_builder.models.weights import load as load_weights
from kedge_builder.quantize.candidates import Candidate
from kedge_builder.quantize.plan import Plan
from kedge_builder.quantize.source import Source
from kedge_builder.recipe import TuneOptions
from kedge_builder.search import record, study
from kedge_builder.search.measured import Measured, PointError
from kedge_builder.search.pareto import Limits, pick
from kedge_builder.search.space import FLOAT, Point, space_of
from kedge_builder.workshop import Workshop
from kedge_shared.device_classes import DeviceClass
from kedge_shared.errors import InputError
from kedge_shared.timing import speed

_TIMED_FRAMES = 8
_POINT_SECONDS = 4.0
_INT8, _MIXED = "int8", "int8, mixed"


@dataclass(frozen=True)
class Tuned:
    """The point that was taken, as a class gets it.

    Attributes:
        chosen: Its engine and how that was chosen.
        section: ``search`` of ``report.json``.
    """

    chosen: Chosen
    section: dict[str, Any]


class Tuner:
    """Searches for one class.

    Args:
        workshop: Of the build.
        device_class: What is built for.
        options: How to search.
        plain: What the class gets without a search; its plans are the search's precisions.
    """

    def __init__(
        self, workshop: Workshop, device_class: DeviceClass, options: TuneOptions, plain: Chosen
    ) -> None:
        self._shop, self._class, self._options, self._plain = (
            workshop, device_class, options, plain,
        )  # fmt: skip
        if not engines.is_here(device_class.runtime.name):
            raise InputError(
                f"--tune measures on this machine, and {device_class.runtime.name} is not on it",
                "search for a class whose runtime is, or leave --tune out",
            )
        self._size = workshop.options.size(device_class)
        self._steps: tuple[PruneStep, ...] = ()
        self._models = self._chain()
        self._frames = [each.frame() for each in workshop.data.select[:_TIMED_FRAMES]]
        self._first: Latency | None = None
        # Points are made of the weights as they are given and pruned.
        plan = replace(plain.candidate.plan, trained=False)
        self._plans = {FLOAT: Plan(precision="float"), _INT8: plan}
        if plan.float_blocks:
            self._plans |= {_INT8: replace(plan, float_blocks=()), _MIXED: plan}
        elif plan.precision == "float":
            self._plans[_INT8] = plain.tried[0].plan

    def tune(self) -> Tuned:
        """Measures the points and takes one; what an earlier run measured is not done again."""
        shop, options = self._shop, self._options
        space = space_of(
            self._class,
            pruning_steps=len(self._models) - 1,
            precisions=[each for each in self._plans if each != FLOAT],
            input_size=self._size,
            stride=int(max(shop.trained.model.stride)),
        )
        limits = Limits(self._class.budgets, space.baseline)
        inputs = study.Inputs(
            weights_sha256=shop.trained.sha256,
            data_sha256=shop.data.sha256,
            device_class=self._class,
            space=space,
            tools=machine.tools(),
            # A budget or a rung changes what "int8, mixed" means under the same name.
            recipe={
                "pruned": ",".join(each.sha256 for each in self._models[1:]),
                **{name: plan.name for name, plan in self._plans.items()},
            },
        )
        shop.cache.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        how = study.SearchOptions(
            cache=shop.cache.folder.parent,
            storage=options.storage,
            trials=options.trials,
            seed=shop.options.seed,
        )
        found = study.explore(inputs, limits, self._measure, how, shop.progress)
        choice = pick(found.records, options.goal, limits)
        candidate, source = self._built(choice.record.point)
        chosen = replace(
            self._plain, candidate=candidate, source=source, reason=choice.reason,
            tried=(*self._plain.tried, candidate),
        )  # fmt: skip
        section = record.section(found, choice, options.goal, limits)
        return Tuned(chosen, {**section, "chain": self._chain_section()})

    def _chain(self) -> list[Trained]:
        """Returns the given model and the kept steps of its pruning chain."""
        if self._options.prune is None:
            return [self._shop.trained]
        from kedge_builder.compress.prune import prune

        wanted: PruneOptions = replace(self._options.prune, size=self._size)
        folder = self._shop.cache.folder.parent / "chains"
        result = prune(self._shop.trained, self._shop.data, wanted, folder, self._shop.progress)
        self._steps = result.steps[1:]
        return [self._shop.trained, *(load_weights(each.path) for each in self._steps)]

    def _chain_section(self) -> list[dict[str, Any]]:
        """Returns what the steps of the chain are; a point's ``pruned`` counts them from one."""
        each_round = self._options.prune.epochs if self._options.prune else 0
        epochs = itertools.accumulate(each.rounds * each_round for each in self._steps)
        return [
            {"kept": step.kept, "parameters": step.parameters, "map50_95": step.map50_95,
             "epochs": trained, "sha256": step.sha256}
            for step, trained in zip(self._steps, epochs, strict=True)
        ]  # fmt: skip

    def _built(self, point: Point) -> tuple[Candidate, Source]:
        source = self._shop.source(
            point.input_size, self._models[point.pruned], opset=self._class.opset
        )
        files = self._shop.quantizer(self._class, source).make(self._plans[point.precision])
        survey = self._shop.surveyor(self._class, source).survey("candidate", files, "select")
        reference = self._shop.surveyor(self._class, self._plain.source).float_survey("select")
        drop = drop_interval(reference.accuracy, survey.accuracy, seed=self._shop.options.seed)
        return Candidate(self._plans[point.precision], files, survey, drop), source

    def _measure(self, point: Point) -> Measured:
        candidate, source = self._built(point)
        accuracy = candidate.survey.accuracy
        if not accuracy.seen or not accuracy.finite:
            raise PointError("sees nothing, or its outputs are not finite")
        p50, p95 = self._frame_ms(candidate, source)
        return Measured(
            map50_95=accuracy.map50_95,
            map50=accuracy.map50,
            latency_p50_ms=p50,
            latency_p95_ms=p95,
            size_bytes=sum(each.path.stat().st_size for each in candidate.files),
            memory_mb=None,
            images=len(accuracy.stats),
            machine=machine.describe(),
        )

    def _frame_ms(self, candidate: Candidate, source: Source) -> tuple[float, float]:
        """Returns median and 95th percentile of the frame time.

        A search takes hours and machines drift, so each point is timed in turn with the baseline,
        and its times are scaled by how far the baseline is off its own first ones.
        """
        base, runtime = self._plain.source, self._class.runtime.name
        with pinned(self._class.threads):
            pair = [
                Timed(engines.load(runtime, files, self._class.threads), of.given, of.read)
                for files, of in (
                    ((EngineFile("engine", base.path),), base),
                    (candidate.files, source),
                )
            ]
            now, found = interleaved(pair, self._frames, seconds=_POINT_SECONDS)
        self._first = self._first or now
        return self._first.p50 / speed(now, found).ratio, found.p95 * self._first.p50 / now.p50


def choose(workshop: Workshop, device_class: DeviceClass, source: Source) -> Tuned:
    """Returns what a class gets: plain INT8 or what the ladder says, then the search if asked."""
    options = workshop.options
    # A search has models of its own, the steps of the pruning chain; an adapted one is none.
    rungs = [each for each in options.rungs if options.tune is None or each != "qat"]
    plain = Chooser(workshop, device_class, source, workshop.trained, rungs).choose()
    if options.tune is None:
        return Tuned(plain, {})
    return Tuner(workshop, device_class, options.tune, plain).tune()
