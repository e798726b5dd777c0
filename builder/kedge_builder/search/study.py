"""The search: an Optuna study in which every point is measured once, by whoever claims it."""

from __future__ import annotations

import contextlib
import random
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TypeAlias

import optuna
from optuna.exceptions import UpdateFinishedTrialError

from kedge_builder.progress import Progress
from kedge_builder.search import ledger, storage
from kedge_builder.search.measured import Measured, PointError, Record
from kedge_builder.search.pareto import Limits, slack, too_small
from kedge_builder.search.space import LEAST_TRIALS, Point, Space
from kedge_shared import wire
from kedge_shared.device_classes import Budgets, DeviceClass
from kedge_shared.errors import InputError
from kedge_shared.ids import sha256_hex

#: Builds a point and measures it, or raises :class:`PointError`.
Measure: TypeAlias = Callable[[Point], Measured]
_Costs: TypeAlias = tuple[float, float, float]


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """Everything that a measurement depends on. Other inputs are another study.

    Attributes:
        weights_sha256: Trained weights.
        data_sha256: Images and labels used.
        device_class: Its budgets don't count: they judge measurements, they don't change them.
        space: Points.
        tools: Tool → version.
        recipe: Options that change a build or a measurement.
    """

    weights_sha256: str
    data_sha256: str
    device_class: DeviceClass
    space: Space
    tools: Mapping[str, str]
    recipe: Mapping[str, str] = field(default_factory=dict)

    @property
    def study_name(self) -> str:
        """Name derived from all of it."""
        unjudged = replace(self, device_class=replace(self.device_class, budgets=Budgets()))
        return f"kedge-{self.device_class.name}-{sha256_hex(wire.encode(unjudged))[:24]}"


@dataclass(frozen=True, kw_only=True)
class SearchOptions:
    """How to search.

    Attributes:
        cache: Folder that holds the SQLite file when no ``storage`` is named.
        storage: Database URL, or ``None``.
        trials: Points to measure, if the space has as many; 12 at least.
        seed: Of every draw.
        heartbeat_seconds: How often a running trial says that it lives.
        stale_seconds: Silence after which its point is taken again. A measurement may hold
            Python's lock for seconds while a runtime compiles.

    Raises:
        InputError: Fewer than 12 trials.
    """

    cache: Path
    storage: str | None = None
    trials: int = 24
    seed: int = 0
    heartbeat_seconds: int = 5
    stale_seconds: int = 30

    def __post_init__(self) -> None:
        if self.trials < LEAST_TRIALS:
            raise InputError(
                f"{self.trials} trials are too few to search with", f"give {LEAST_TRIALS} or more"
            )

    @property
    def url(self) -> str:
        """Of the database."""
        return self.storage or storage.default_url(self.cache)


@dataclass(frozen=True)
class Explored:
    """What a search found.

    Attributes:
        storage: Database, without its password.
        study: Name.
        records: Every finished point, in the order of points; measured here or by others.
    """

    storage: str
    study: str
    records: tuple[Record, ...]


def explore(
    inputs: Inputs, limits: Limits, measure: Measure, options: SearchOptions, progress: Progress
) -> Explored:
    """Measures points until enough are finished, in this process or in others of the same study.

    Killed and called again it goes on: a finished point is never measured twice. A space no larger
    than ``options.trials`` is measured whole; a larger one is searched by Optuna's multi-objective
    TPE under the limits as constraints (Bergstra et al. 2011; Ozaki et al. 2022).

    Args:
        inputs: What is searched; names the study.
        limits: Steer the search; :func:`kedge_builder.search.pareto.pick` judges by them.
        measure: Builds and measures one point.
        options: How.
        progress: Shows finished points and the time left.

    Raises:
        InputError: The storage's URL is wrong.
        StorageError: The storage cannot be used.
    """
    with storage.quiet(), storage.storage_errors(options.url):
        study = storage.open_study(
            options.url,
            inputs.study_name,
            heartbeat_seconds=options.heartbeat_seconds,
            stale_seconds=options.stale_seconds,
        )
        search = _Search(study, inputs.space, limits, measure, options)
        name = f"{inputs.device_class.name}: searching, {search.target} points"
        with progress.stage(name, search.target) as tick:
            records = search.run(tick)
    return Explored(storage.shown(options.url), study.study_name, records)


class _TakenError(Exception):
    """Another process is measuring this point."""


class _Search:
    """One worker of a study."""

    def __init__(
        self,
        study: optuna.Study,
        space: Space,
        limits: Limits,
        measure: Measure,
        options: SearchOptions,
    ) -> None:
        self._study, self._space, self._limits = study, space, limits
        self._measure, self._options = measure, options
        self.target = min(options.trials, len(space.points()))
        self._repeated = False

    def run(self, tick: Callable[[], None]) -> tuple[Record, ...]:
        """Works until ``target`` points are finished, whoever measured them."""
        shown = 0
        while True:
            trials = self._study.get_trials(deepcopy=False)
            done = ledger.finished(trials, self._space)
            running = ledger.claimed(trials, self._space).keys() - done.keys()
            for _ in range(min(len(done), self.target) - shown):
                tick()
                shown += 1
            if len(done) >= self.target:
                return tuple(done[point] for point in sorted(done))
            small = too_small(done.values(), self._limits)
            free = [
                each for each in self._space.points()
                if each not in done and each not in running and each.input_size > small
            ]  # fmt: skip
            if not free and not running:
                return tuple(done[point] for point in sorted(done))
            if not free or len(done) + len(running) >= self.target:
                # The rest is being measured elsewhere, or its process died and will be found out.
                time.sleep(min(1.0, self._options.heartbeat_seconds / 2))
                optuna.storages.fail_stale_trials(self._study)
                continue
            self._step(self._planned(trials, free), len(trials))

    def _planned(self, trials: list[optuna.trial.FrozenTrial], free: list[Point]) -> Point | None:
        """Returns the point to take next where that is not the sampler's to say."""
        first = (*self._space.anchors(), *ledger.given_up(trials, self._space))
        for point in first:
            if point in free:
                return point
        whole = self.target == len(self._space.points())
        if whole or self._repeated:
            seed = self._options.seed + (0 if whole else len(trials))
            return random.Random(seed).choice(free)  # noqa: S311 - a draw, not a secret
        return None

    def _step(self, planned: Point | None, drawn: int) -> None:
        # A sampler of its own for each draw, seeded by how many were made: a search that is
        # taken up again does not repeat the draws before.
        sampler: optuna.samplers.BaseSampler = optuna.samplers.TPESampler(
            seed=self._options.seed + drawn, n_startup_trials=max(6, self.target // 3)
        )
        if planned:
            # Not enqueue_trial: SQLite knows no row locks, and two workers can pop one trial.
            fixed = ledger.params_of(planned, self._space)
            sampler = optuna.samplers.PartialFixedSampler(fixed, sampler)
        self._study.sampler = sampler
        # A trial that was silent for too long was given up by another worker meanwhile.
        with contextlib.suppress(UpdateFinishedTrialError):
            self._study.optimize(self._try, n_trials=1, catch=(_TakenError,))

    def _try(self, trial: optuna.Trial) -> _Costs:
        point = ledger.suggest(trial, self._space)
        # The claim stands in the storage now. Of two workers that claim one point at the same
        # time at least the later sees the other and steps back; so may both, and try again.
        trials = self._study.get_trials(deepcopy=False)
        done = ledger.finished(trials, self._space)
        small = too_small(done.values(), self._limits)
        self._repeated = point in done or point.input_size <= small
        if point in done:
            trial.set_user_attr(ledger.REUSED, True)
            return self._answer(trial, done[point], done)
        if self._repeated:
            raise optuna.TrialPruned
        if point in ledger.claimed(trials, self._space, but=trial.number):
            time.sleep(random.uniform(0, 0.2))  # noqa: S311 - keeps two workers out of step
            raise _TakenError
        try:
            figures = self._measure(point)
        except PointError as error:
            trial.set_user_attr(ledger.WHY, str(error))
            raise optuna.TrialPruned from None
        trial.set_user_attr(ledger.MEASURED, asdict(figures))
        return self._answer(trial, Record(point, figures), done)

    def _answer(self, trial: optuna.Trial, record: Record, done: Mapping[Point, Record]) -> _Costs:
        figures = record.measured
        if figures is None:
            raise optuna.TrialPruned
        baseline = done.get(self._space.baseline)
        over = slack(figures, baseline.measured if baseline else None, self._limits)
        for name, excess in over.items():
            trial.set_constraint(name, excess)
        return figures.map50_95, figures.latency_p50_ms, float(figures.size_bytes)
