"""What a build is asked to do."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path

from kedge_builder.compress.chain import PruneOptions
from kedge_builder.judge.ladder import Rung
from kedge_builder.search.pareto import GOALS, Goal
from kedge_builder.search.space import LEAST_TRIALS
from kedge_shared.device_classes import Budgets, DeviceClass
from kedge_shared.errors import InputError
from kedge_shared.ids import check_name
from kedge_shared.manifest import Shadow

#: Larger inputs are a slip of the finger: 4096 px square is 200 MB for one batch of floats.
_LARGEST_INPUT = 4096
#: What an override may name: budgets, and a build that its data could not decide.
OVERRIDABLE = (*(each.name for each in fields(Budgets)), "speed", "undecided")


@dataclass(frozen=True, kw_only=True)
class TuneOptions:
    """How ``--tune`` searches.

    Attributes:
        goal: What the pick is for.
        trials: Points to measure.
        storage: Database URL that machines may share, or ``None`` for a file in the cache.
        prune: Pruning chain whose steps are points, or ``None`` for no pruning.
    """

    goal: Goal = "fastest"
    trials: int = 24
    storage: str | None = None
    prune: PruneOptions | None = None

    def recipe(self) -> dict[str, str]:
        """Returns what the manifest records of the search and of the training it rests on."""
        chain: dict[str, float] = {}
        if self.prune:
            chain = {"to": self.prune.macs, "step": self.prune.step, **self.prune.recipe()}
        return {
            "pick": self.goal,
            "trials": str(self.trials),
            **{f"prune_{key}": f"{value:g}" for key, value in chain.items() if key != "size"},
        }


@dataclass(frozen=True, kw_only=True)
class BuildOptions:
    """Options of one ``kedge build``.

    Attributes:
        weights: Trained checkpoint.
        data: ``data.yaml``.
        classes: Device classes to build for.
        out: Folder for the builds.
        model: Name of the model.
        release: Version.
        release_counter: Order of releases.
        policy: Model policy, or ``None`` to propose one.
        input_size: Pixels instead of the class's.
        overrides: Budget → reason.
        previous: Build that boards run now, or ``None``.
        terms: What the release must hold against it on boards.
        images: Gate images at the most; ``None`` is all.
        seed: Of every draw.
        latency_seconds: Time spent on timing, per class.
        calibration_images: Taken for calibration at the most.
        rungs: What may be tried when plain INT8 loses too much.
        tune: How to search, or ``None``.
        cache: Folder of steps that were done; ``None`` is the user's own.
        bench_server: Address of the server whose boards measure latency, or ``None``.
        bench_key: Private key that their jobs are signed with.
        bench_wait_seconds: Until a board has taken the job.
        token_file: Operator token for ``bench_server``.
    """

    weights: Path
    data: Path
    classes: Sequence[DeviceClass]
    out: Path
    model: str
    release: str
    release_counter: int
    policy: Path | None = None
    input_size: int | None = None
    overrides: Mapping[str, str] = field(default_factory=dict)
    previous: Path | None = None
    terms: Shadow = field(default_factory=Shadow)
    images: int | None = None
    seed: int = 0
    latency_seconds: float = 6.0
    calibration_images: int = 128
    rungs: tuple[Rung, ...] = ("mixed",)
    tune: TuneOptions | None = None
    cache: Path | None = None
    bench_server: str | None = None
    bench_key: Path | None = None
    bench_wait_seconds: float = 600.0
    token_file: Path | None = None

    def check(self) -> None:
        """Checks what can be told before anything is read.

        Raises:
            InputError: An option is out of bounds, or a class is named twice.
        """
        names = [each.name for each in self.classes]
        twice = sorted({each for each in names if names.count(each) > 1})
        if twice:
            raise InputError(f"device class {twice[0]} is given twice", "name each once")
        if self.input_size is not None and not 32 <= self.input_size <= _LARGEST_INPUT:
            raise InputError(
                f"input size {self.input_size} is not between 32 and {_LARGEST_INPUT} pixels"
            )
        if self.images is not None and self.images < 1:
            raise InputError(f"{self.images} images cannot judge a build", "leave --images out")
        if not 8 <= self.calibration_images <= 1000:
            raise InputError(
                f"{self.calibration_images} calibration images are not between 8 and 1000",
                "100-500 are best",
            )
        if (self.bench_server is None) != (self.bench_key is None):
            raise InputError("--bench-server and --bench-key go together", "give both or neither")
        if self.release_counter < 1:
            raise InputError(f"release counter {self.release_counter} is below 1")

    def recipe(self, device_class: DeviceClass) -> dict[str, str]:
        """Returns what the manifest records of the options."""
        return {
            "form": device_class.form,
            "input_size": str(self.size(device_class)),
            "seed": str(self.seed),
            "reduce_range": str(device_class.reduce_range).lower(),
            **(self.tune.recipe() if self.tune else {}),
        }

    def size(self, device_class: DeviceClass) -> int:
        """Returns the input size for a class, pixels."""
        return self.input_size or device_class.input_size


def read_tune(
    pick: str, trials: int, storage: str, prune_to: float, epochs: int, seed: int
) -> TuneOptions:
    """Reads the options of ``--tune``.

    Raises:
        InputError: The goal is not known, or a number is out of its range.
    """
    goal = next((each for each in GOALS if each == pick), None)
    if goal is None:
        raise InputError(f"--pick {pick!r} is not known", f"use {', '.join(GOALS)}")
    if trials < LEAST_TRIALS:
        raise InputError(
            f"{trials} trials are too few to search with", f"give {LEAST_TRIALS} or more"
        )
    prune = None
    if prune_to != 1:
        prune = PruneOptions(macs=prune_to, epochs=epochs, seed=seed)
        prune.check()
    return TuneOptions(goal=goal, trials=trials, storage=storage or None, prune=prune)


def read_overrides(given: Sequence[str]) -> dict[str, str]:
    """Reads ``["latency_p95_ms=accepted for the pilot"]``.

    Raises:
        InputError: Not BUDGET=REASON, or no such budget.
    """
    found: dict[str, str] = {}
    for each in given:
        budget, _, reason = each.partition("=")
        if budget not in OVERRIDABLE or len(reason.strip()) < 3:
            raise InputError(
                f"override {each!r} is not BUDGET=REASON", f"budgets: {', '.join(OVERRIDABLE)}"
            )
        found[budget] = reason.strip()
    return found


def model_name(weights: Path) -> str:
    """Returns a model's name made of the checkpoint's file name."""
    return check_name("model", re.sub(r"[^a-z0-9._-]+", "-", weights.stem.lower()).strip("-._"))


def default_counter() -> int:
    """Returns the release counter of a build made now: Unix time, so that later is higher."""
    return int(time.time())
