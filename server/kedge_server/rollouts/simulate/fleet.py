"""Fleets to be: which boards fail, and when that is known. Pure; chance is handed in."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

Floats: TypeAlias = npt.NDArray[np.float64]
Ints: TypeAlias = npt.NDArray[np.int64]

HEALTHY, FAILED, UNDECIDED, ABSENT = range(4)


@dataclass(frozen=True)
class FleetModel:
    """What a fleet is like, and what a release does to it.

    Attributes:
        devices: Boards.
        shares: Class → share of the fleet.
        failing: Class → share of its boards that the release fails on.
        percents: Stages, cumulative.
        absent: Share of boards that never ask.
        unsure: Share that cannot decide (disk, memory, an empty scene).
        hanging: Share of failures that show by silence alone.
        spread_seconds: Boards take a stage up over so long, evenly.
        quick_seconds: Mean time until a failure shows that is no silence.
        proof_seconds: Least time until a board has proven healthy; the mean is a third more.
        silence_seconds: After so long a silent board has failed, and an absent one is given up.
        soak_seconds: Of the gate.
    """

    devices: int
    shares: Mapping[str, float]
    failing: Mapping[str, float]
    percents: tuple[float, ...] = (5.0, 25.0, 100.0)
    absent: float = 0.05
    unsure: float = 0.02
    hanging: float = 0.2
    spread_seconds: float = 3600.0
    quick_seconds: float = 300.0
    proof_seconds: float = 900.0
    silence_seconds: float = 1800.0
    soak_seconds: float = 600.0


@dataclass(frozen=True)
class Fleet:
    """One fleet under one release; all arrays are (devices,).

    Attributes:
        model: What it was drawn from.
        classes: Names.
        of_class: Index of the class.
        stage: Zero-based.
        begins: Seconds from the stage's start until the board takes it up; infinite if absent.
        known: Seconds from the stage's start until its outcome is known.
        outcome: HEALTHY, FAILED, UNDECIDED or ABSENT.
    """

    model: FleetModel
    classes: tuple[str, ...]
    of_class: Ints
    stage: Ints
    begins: Floats
    known: Floats
    outcome: Ints


def draw(model: FleetModel, chance: np.random.Generator) -> Fleet:
    """Draws a fleet; its boards are exchangeable, so the draw of cohorts is only their sizes."""
    sizes = class_sizes(model.devices, model.shares)
    of_class = np.repeat(np.arange(len(sizes)), list(sizes.values()))
    stage = np.concatenate([_stages(count, model.percents) for count in sizes.values()])
    rates = np.array([model.failing[each] for each in sizes])
    count = len(of_class)
    fails = chance.random(count) < rates[of_class]
    outcome = np.where(fails, FAILED, HEALTHY)
    outcome[chance.random(count) < model.unsure] = UNDECIDED
    absent = chance.random(count) < model.absent
    outcome[absent] = ABSENT
    begins = chance.random(count) * model.spread_seconds
    begins[absent] = np.inf
    quick = chance.exponential(model.quick_seconds, count)
    slow = model.proof_seconds + chance.exponential(model.proof_seconds / 3, count)
    hangs = chance.random(count) < model.hanging
    took = np.where(outcome == HEALTHY, slow, quick)
    took = np.where((outcome == FAILED) & hangs, model.silence_seconds, took)
    took = np.minimum(took, model.silence_seconds)
    known = np.where(absent, model.silence_seconds, begins + took)
    return Fleet(model, tuple(sizes), of_class, stage, begins, known, outcome)


def class_sizes(devices: int, shares: Mapping[str, float]) -> dict[str, int]:
    """Returns how many boards of each class a fleet has; each has one at least."""
    sizes = {name: max(1, round(devices * share)) for name, share in shares.items()}
    largest = max(sizes, key=lambda name: sizes[name])
    sizes[largest] = max(1, sizes[largest] + devices - sum(sizes.values()))
    return sizes


def _stages(count: int, percents: Sequence[float]) -> Ints:
    """Returns the stage of each board of a class, as kedge_server.rollouts.cohorts sizes them."""
    upto = [min(count, math.ceil(round(count * each / 100, 9))) for each in percents]
    return np.searchsorted(np.array(upto), np.arange(count), side="right")
