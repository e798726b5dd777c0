"""Kedge's gate on a simulated fleet: the same arithmetic as ``trial``, solved for its times.

``trial.judge`` is asked at every look; here the first look that would answer is found directly, so
that fleets of 100,000 boards take milliseconds. A test holds the two to each other.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from kedge_server.rollouts import sequential
from kedge_server.rollouts.simulate.fleet import (
    ABSENT,
    FAILED,
    HEALTHY,
    UNDECIDED,
    Fleet,
    Floats,
    Ints,
)
from kedge_shared.rollouts import SequentialSpec

#: A class that has not proven itself by then does not: its evidence falls with every board.
_LONGEST_PROOF = 4096


@dataclass(frozen=True)
class Course:
    """How a rollout went.

    Attributes:
        stopped: Seconds after its start when it was halted or a person was asked; infinite if it
            completed.
        asked: It was not halted, but stands until somebody says yes.
        starts: Seconds of the start of each stage that was begun.
        done: Seconds of its end; infinite if it was stopped.
    """

    stopped: float
    asked: bool
    starts: tuple[float, ...]
    done: float


@dataclass(frozen=True)
class _Verdict:
    halts: float
    passes: float
    exhausted: float
    doubtful: bool


def run(fleet: Fleet, spec: SequentialSpec) -> Course:
    """Rolls a release out under Kedge's gates."""
    starts: list[float] = [0.0]
    halts, pool = math.inf, [0]
    stages = len(fleet.model.percents)
    while True:
        at = len(starts) - 1
        stage_halts, ends, asks, widens = _stage(fleet, spec, pool, starts)
        halts = min(halts, stage_halts)
        if halts <= ends:
            return Course(halts, False, tuple(starts), math.inf)
        if asks:
            return Course(ends, True, tuple(starts), math.inf)
        if at + 1 == stages:
            # What shows after the last stage has passed halts a completed rollout too.
            late = math.isfinite(halts)
            return Course(halts, False, tuple(starts), math.inf if late else ends)
        starts.append(ends)
        pool = [*pool, at + 1] if widens else [at + 1]


def _stage(
    fleet: Fleet, spec: SequentialSpec, pool: Sequence[int], starts: Sequence[float]
) -> tuple[float, float, bool, bool]:
    """Returns when a pool halts, when it is over, whether it asks and whether it is widened."""
    chosen = np.flatnonzero(np.isin(fleet.stage, pool))
    if not len(chosen):
        return math.inf, starts[-1], False, False
    offset = np.array(starts)[fleet.stage[chosen]]
    begins, known = fleet.begins[chosen] + offset, fleet.known[chosen] + offset
    outcome, of_class = fleet.outcome[chosen], fleet.of_class[chosen]
    names = np.unique(of_class)
    tests = len(names) + (len(names) > 1)
    halts_at = sequential.halt_bound(spec.alpha / (len(fleet.model.percents) * tests))
    doubtful = _leaning(spec, outcome) >= sequential.halt_bound(spec.alpha)
    said = [
        _verdict(spec, halts_at, begins[mine], known[mine], outcome[mine], fleet.model.soak_seconds)
        for mine in (of_class == each for each in names)
    ]
    halts = min(each.halts for each in said)
    if len(names) > 1:
        halts = min(halts, _halts(spec, halts_at, begins, known, outcome))
    ends = max(starts[-1], *(min(each.passes, each.exhausted) for each in said))
    open_ones = [each for each in said if not math.isfinite(each.passes)]
    doubtful = doubtful or any(each.doubtful for each in said)
    return halts, ends, bool(open_ones) and doubtful, bool(open_ones)


def _verdict(
    spec: SequentialSpec, halts_at: float, begins: Floats, known: Floats, outcome: Ints,
    soak_seconds: float,
) -> _Verdict:  # fmt: skip
    halts = _halts(spec, halts_at, begins, known, outcome)
    passes = _passes(spec, begins, known, outcome)
    healthy = known[outcome == HEALTHY]
    # Only the boards that ask or work are waited for; then their last proof has to soak.
    last = float(known.max())
    soaked = max(last, float(healthy.max()) + soak_seconds) if len(healthy) else last
    doubtful = _leaning(spec, outcome) >= sequential.halt_bound(spec.alpha)
    return _Verdict(halts, passes + soak_seconds, soaked, doubtful)


def _halts(
    spec: SequentialSpec, halts_at: float, begins: Floats, known: Floats, outcome: Ints
) -> float:
    """Returns when the evidence against reaches its bound; infinite if it never does.

    It is largest right after a failure, so only the ranks of the failures matter, in the order in
    which they become known.
    """
    counted = (outcome != ABSENT) & (outcome != UNDECIDED)
    order = np.argsort(begins[counted], kind="stable")
    failed = np.flatnonzero(outcome[counted][order] == FAILED)
    up, down = _up(spec), _down(spec)
    shows = known[counted][order][failed]
    ranks: Ints = np.empty(0, dtype=np.int64)
    for which in np.argsort(shows, kind="stable"):
        ranks = np.sort(np.append(ranks, failed[which] + 1))
        fails = np.arange(1, len(ranks) + 1)
        if float((fails * up + (ranks - fails) * down).max()) >= halts_at:
            return float(shows[which])
    return math.inf


def _leaning(spec: SequentialSpec, outcome: Ints) -> float:
    failed, healthy = int((outcome == FAILED).sum()), int((outcome == HEALTHY).sum())
    return failed * _up(spec) + healthy * _down(spec)


def _passes(spec: SequentialSpec, begins: Floats, known: Floats, outcome: Ints) -> float:
    """Returns when the evidence for it reaches its bound; infinite if it never does."""
    counted = (outcome != ABSENT) & (outcome != UNDECIDED)
    order = np.argsort(begins[counted], kind="stable")[:_LONGEST_PROOF]
    shows = known[counted][order]
    healthy = outcome[counted][order] == HEALTHY
    proof = sequential.pass_bound(spec.alpha, spec.beta)
    times = np.sort(shows[healthy])

    def holds(at: float) -> bool:
        clean = np.cumsum(healthy & (shows <= at))
        others = np.arange(1, len(clean) + 1) - clean
        return bool((clean * -_down(spec) - others * _up(spec) >= proof - 1e-12).any())

    if not len(times) or not holds(times[-1]):
        return math.inf
    low, high = 0, len(times) - 1
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if holds(times[middle]) else (middle + 1, high)
    return float(times[low])


def _up(spec: SequentialSpec) -> float:
    return math.log(spec.bad_share / spec.good_share)


def _down(spec: SequentialSpec) -> float:
    return math.log((1 - spec.bad_share) / (1 - spec.good_share))
