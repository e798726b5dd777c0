"""Rows of a benchmark: a figure, its target and whether it holds; as a table and as JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

_WIDEST_NAME = 64


@dataclass(frozen=True, kw_only=True)
class Row:
    """One figure.

    Attributes:
        name: What was measured.
        value: It; ``None`` is not measured, and the name says why.
        unit: Of value, target, interval and against.
        target: What was promised, if anything was.
        holds: Whether the target is met; ``None`` without a target, or where the interval holds
            both answers.
        against: The simpler way, float or the peer, in the same run.
        interval: 95 % of the value, where one was made.
    """

    name: str
    value: float | None
    unit: str
    target: float | None = None
    holds: bool | None = None
    against: float | None = None
    interval: tuple[float, float] | None = None

    def as_json(self) -> dict[str, Any]:
        """Returns the row for machines; ``interval`` only where there is one."""
        body: dict[str, Any] = {
            "name": self.name, "value": rounded(self.value), "unit": self.unit,
            "target": rounded(self.target), "holds": self.holds, "against": rounded(self.against),
        }  # fmt: skip
        return (
            body if self.interval is None else {**body, "interval": [*map(rounded, self.interval)]}
        )


def rounded(value: float | None) -> float | None:
    """Returns a figure with the four digits that a run can repeat."""
    return None if value is None else round(float(value), 4)


def as_object(machine: str, rows: Sequence[Row]) -> str:
    """Returns what ``--json`` prints."""
    return json.dumps({"machine": machine, "rows": [each.as_json() for each in rows]})


def as_table(rows: Sequence[Row], against: str) -> str:
    """Returns the table.

    Args:
        rows: Of one run.
        against: What the last column holds.
    """
    wide = min(_WIDEST_NAME, max(len(each.name) for each in rows)) + 2
    head = f"{'':{wide}}{'value':>10}  {'unit':10}{'95 %':>18}{'target':>9}  {'holds':10}{against}"
    return "\n".join([head, *(_line(each, wide) for each in rows)])


def _line(row: Row, wide: int) -> str:
    interval = "" if row.interval is None else f"{row.interval[0]:.2f} … {row.interval[1]:.2f}"
    return (
        f"{row.name:{wide}}{_figure(row.value):>10}  {row.unit:10}{interval:>18}"
        f"{_figure(row.target):>9}  {_holds(row):10}{_figure(row.against)}"
    )


def _figure(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}" if abs(value) < 1000 else f"{value:.0f}"


def _holds(row: Row) -> str:
    if row.target is None:
        return ""
    return {True: "yes", False: "MISSED", None: "undecided"}[row.holds]
