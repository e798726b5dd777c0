"""What ``report.json`` keeps of a search. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from kedge_builder.search.measured import Measured, Record
from kedge_builder.search.pareto import Choice, Goal, Limits, feasible, front, misses, too_small
from kedge_builder.search.space import Point
from kedge_builder.search.study import Explored
from kedge_shared.device_classes import Budgets


def section(explored: Explored, choice: Choice, goal: Goal, limits: Limits) -> dict[str, Any]:
    """Returns the ``search`` part of ``report.json``.

    ``front`` marks the points that no point within the limits dominates.

    Args:
        explored: What was measured.
        choice: What was taken.
        goal: For which goal.
        limits: Within which limits.
    """
    fitting = feasible(explored.records, limits)
    best = front(fitting)
    known = {each.point: each.measured for each in explored.records}
    baseline = known.get(limits.baseline)
    fits = {each.point for each in fitting}
    return {
        "storage": explored.storage,
        "study": explored.study,
        "goal": goal,
        "picked": choice.record.point.key,
        "reason": choice.reason,
        "baseline": limits.baseline.key,
        "limits": {**asdict(limits.budgets), "floor": limits.floor},
        "too_small": too_small(explored.records, limits),
        "machines": sorted({each.machine for each in known.values() if each and each.machine}),
        "trials": [
            {
                "key": each.point.key,
                "title": each.point.title,
                "point": asdict(each.point),
                "measured": asdict(each.measured) if each.measured else None,
                "front": each.point in best,
                "feasible": each.point in fits,
                "why": _why(each, baseline, limits),
            }
            for each in explored.records
        ],
    }


def read(body: Mapping[str, Any]) -> tuple[tuple[Record, ...], Limits]:
    """Reads back what :func:`section` wrote, so that a choice can be made again from a report."""
    records = tuple(
        Record(
            Point(**each["point"]),
            Measured(**each["measured"]) if each["measured"] else None,
            "" if each["measured"] else each["why"],
        )
        for each in body["trials"]
    )
    baseline = next(each.point for each in records if each.point.key == body["baseline"])
    budgets = {name: value for name, value in body["limits"].items() if name != "floor"}
    return records, Limits(Budgets(**budgets), baseline, body["limits"]["floor"])


def _why(record: Record, baseline: Measured | None, limits: Limits) -> str:
    if record.measured is None:
        return record.why
    return "; ".join(each.reason for each in misses(record.measured, baseline, limits))
