"""Which points are worth having, and which one is taken. Pure: the order of records is no input."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from kedge_builder.search.measured import Measured, Record
from kedge_builder.search.space import Point
from kedge_shared.device_classes import Budgets
from kedge_shared.errors import BudgetError, InputError

Goal = Literal["fastest", "smallest", "most-accurate"]
GOALS: tuple[Goal, ...] = get_args(Goal)
_MIB = 2**20
#: A drop is weighed in points of mAP where its budget is nearly nothing.
_LEAST_DROP = 0.01
#: Share of the allowed drop that a point may take to be picked first.
_AIMED = 0.5
#: An input size at which a point loses so many times the allowed drop is too small for the task.
_HOPELESS, _HOPELESS_LEAST = 5.0, 0.05


@dataclass(frozen=True)
class Limits:
    """What a point must keep to.

    Attributes:
        budgets: Of the device class; ``accuracy_drop`` is the allowed loss against ``baseline``.
        baseline: Unpruned, in float, at the class's size.
        floor: Least mAP50-95, or ``None``.
    """

    budgets: Budgets
    baseline: Point
    floor: float | None = None


@dataclass(frozen=True)
class Miss:
    """One limit that a point misses.

    Attributes:
        limit: Name of the budget, or ``floor``.
        reason: What a person reads.
        excess: How far over, as a share of the limit.
    """

    limit: str
    reason: str
    excess: float


@dataclass(frozen=True)
class Choice:
    """The point that is taken.

    Attributes:
        record: It.
        reason: The sentence a person reads.
    """

    record: Record
    reason: str


def slack(measured: Measured, baseline: Measured | None, limits: Limits) -> dict[str, float]:
    """Returns how far each limit is exceeded, as a share of it; zero or less keeps it.

    Args:
        measured: Of the point.
        baseline: Of the baseline; without it the drop is not judged.
        limits: Limits.
    """
    budgets = limits.budgets
    figures = (
        ("latency_p95_ms", measured.latency_p95_ms, budgets.latency_p95_ms),
        ("memory_mb", measured.memory_mb, budgets.memory_mb),
        ("artifact_mb", measured.size_bytes / _MIB, budgets.artifact_mb),
    )
    found = {
        name: value / limit - 1
        for name, value, limit in figures
        if value is not None and limit is not None
    }
    if baseline and budgets.accuracy_drop is not None:
        over = baseline.map50_95 - measured.map50_95 - budgets.accuracy_drop
        found["accuracy_drop"] = over / max(budgets.accuracy_drop, _LEAST_DROP)
    if limits.floor is not None:
        found["floor"] = (limits.floor - measured.map50_95) / max(limits.floor, _LEAST_DROP)
    return found


def too_small(records: Iterable[Record], limits: Limits) -> int:
    """Returns the largest input size at which a point lost beyond mending; 0 if none did.

    What a model cannot see at one size it cannot see at a smaller one, pruned or not: DeepPCB loses
    33 points at 256 px of 320, and a search that does not know that spends two thirds of its trials
    below.
    """
    known = {each.point: each.measured for each in records if each.measured}
    baseline, allowed = known.get(limits.baseline), limits.budgets.accuracy_drop
    if baseline is None or allowed is None:
        return 0
    least = baseline.map50_95 - max(_HOPELESS * allowed, _HOPELESS_LEAST)
    return max(
        (point.input_size for point, each in known.items()
         if point.input_size < limits.baseline.input_size and each.map50_95 < least),
        default=0,
    )  # fmt: skip


def misses(measured: Measured, baseline: Measured | None, limits: Limits) -> tuple[Miss, ...]:
    """Returns the limits that a point misses, with their sentences."""
    budgets = limits.budgets
    drop = (baseline.map50_95 - measured.map50_95) * 100 if baseline else 0.0
    said = {
        "latency_p95_ms": f"latency p95 {measured.latency_p95_ms:.1f} ms, "
        f"budget {budgets.latency_p95_ms or 0:.1f}",
        "memory_mb": f"memory {measured.memory_mb or 0:.1f} MiB, "
        f"budget {budgets.memory_mb or 0:.1f}",
        "artifact_mb": f"size {measured.size_bytes / _MIB:.1f} MiB, "
        f"budget {budgets.artifact_mb or 0:.1f}",
        "accuracy_drop": f"mAP50-95 drops by {drop:.2f} points, "
        f"{(budgets.accuracy_drop or 0) * 100:.2f} allowed",
        "floor": f"mAP50-95 {measured.map50_95:.4f}, floor {limits.floor or 0:.4f}",
    }
    over = slack(measured, baseline, limits)
    return tuple(Miss(name, said[name], excess) for name, excess in over.items() if excess > 0)


def dominates(one: Measured, other: Measured) -> bool:
    """Says whether ``one`` is nowhere worse in accuracy, latency and size, and once better."""
    mine, theirs = _costs(one), _costs(other)
    return mine != theirs and all(a <= b for a, b in zip(mine, theirs, strict=True))


def front(records: Iterable[Record]) -> frozenset[Point]:
    """Returns the points that no other dominates. Equal figures stay side by side."""
    known = [(each.point, each.measured) for each in records if each.measured]
    return frozenset(
        point
        for point, figures in known
        if not any(dominates(other, figures) for _, other in known)
    )


def feasible(records: Iterable[Record], limits: Limits) -> tuple[Record, ...]:
    """Returns the records that keep every limit, in the order of their points."""
    known = _in_order(records)
    baseline = _measured(known).get(limits.baseline)
    return tuple(
        each for each in known if each.measured and not misses(each.measured, baseline, limits)
    )


def pick(records: Sequence[Record], goal: Goal, limits: Limits) -> Choice:
    """Takes one point: the best for ``goal`` among those that keep every limit.

    Those that lose at most half of what is allowed come first: the quickest of many is the one
    whose loss the select images are most likely to understate. DeepPCB at 29 % of its MACs lost
    0.74 points there and 1.73 on the gate images.

    Equal figures are told apart by the other figures, then by the point itself, so the same
    records give the same choice in any order.

    Args:
        records: What was measured, the baseline with it.
        goal: ``fastest`` by median frame time, ``smallest`` by size of the files,
            ``most-accurate`` by mAP50-95.
        limits: What it must keep to.

    Raises:
        InputError: The baseline was not measured, or ``fastest`` and ``smallest`` have neither
            an allowed drop nor a floor: the best of them would be one that sees nothing.
        BudgetError: No point keeps every limit; says which came nearest.
    """
    known = _in_order(records)
    baseline = _measured(known).get(limits.baseline)
    if baseline is None:
        raise InputError(
            f"baseline ({limits.baseline.title}) was not measured", "let the search finish"
        )
    bounded = limits.budgets.accuracy_drop is not None or limits.floor is not None
    if goal != "most-accurate" and not bounded:
        raise InputError(
            f"'{goal}' without an allowed drop would take what sees nothing",
            "set 'accuracy_drop' among the budgets of the device class",
        )
    fitting = feasible(known, limits)
    if not fitting:
        raise _nothing_fits(known, baseline, limits)
    safe = [each for each in fitting if _spares(each, baseline, limits)]
    best = min(safe or fitting, key=lambda each: _rank(each, goal))
    return Choice(best, _reason(best, goal, baseline, limits, len(safe), len(fitting), len(known)))


def _spares(record: Record, baseline: Measured, limits: Limits) -> bool:
    """Says whether a point loses at most half of what is allowed; any does if nothing is said."""
    allowed = limits.budgets.accuracy_drop
    if record.measured is None or allowed is None:
        return allowed is None
    return baseline.map50_95 - record.measured.map50_95 <= _AIMED * allowed


def _costs(measured: Measured) -> tuple[float, float, float]:
    return -measured.map50_95, measured.latency_p50_ms, float(measured.size_bytes)


def _in_order(records: Iterable[Record]) -> list[Record]:
    return sorted(records, key=lambda each: each.point)


def _measured(records: Iterable[Record]) -> Mapping[Point, Measured]:
    return {each.point: each.measured for each in records if each.measured}


def _rank(record: Record, goal: Goal) -> tuple[float, float, float, Point]:
    if record.measured is None:
        raise ValueError(f"{record.point.key} has no figures")
    accuracy, latency, size = _costs(record.measured)
    if goal == "fastest":
        return latency, accuracy, size, record.point
    if goal == "smallest":
        return size, accuracy, latency, record.point
    return accuracy, latency, size, record.point


def _nothing_fits(known: Sequence[Record], baseline: Measured, limits: Limits) -> BudgetError:
    worst = [
        (max(miss.excess for miss in missed), each, missed)
        for each in known
        if each.measured and (missed := misses(each.measured, baseline, limits))
    ]
    _, nearest, missed = min(worst, key=lambda each: (each[0], each[1].point))
    reasons = ", ".join(each.reason for each in missed)
    return BudgetError(
        f"none of {len(known)} points keeps every budget; nearest is {nearest.point.title}: "
        f"{reasons}",
        "raise the budget, or give a smaller model",
    )


def _reason(best: Record, goal: Goal, baseline: Measured, limits: Limits,
            safe: int, fitting: int, tried: int) -> str:  # fmt: skip
    figures = best.measured
    if figures is None:
        raise ValueError(f"{best.point.key} has no figures")
    drop = (baseline.map50_95 - figures.map50_95) * 100
    allowed = limits.budgets.accuracy_drop
    bound = "" if allowed is None else f", {allowed * 100:.2f} allowed"
    aimed = f"{safe} that lose at most {_AIMED * (allowed or 0) * 100:.2f} points, of {fitting}"
    among = aimed if 0 < safe < fitting else str(fitting)
    return (
        f"{goal} of the {among} points that keep every budget, out of {tried} tried: "
        f"{best.point.title}; {figures.latency_p50_ms:.1f} ms a frame "
        f"({baseline.latency_p50_ms / figures.latency_p50_ms:.2f}x the baseline's speed), "
        f"{figures.size_bytes / _MIB:.1f} MiB, mAP50-95 {figures.map50_95:.4f} "
        f"({drop:.2f} points lost{bound}) on {figures.images} select images"
    )
