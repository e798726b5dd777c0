"""Everything that is known of one board: its updates with reasons, its last word on its frames."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlmodel import Session, col, select

from kedge_server.devices import trace
from kedge_server.devices.tables import LedgerRow, ReportRow
from kedge_server.devices.trace import Point
from kedge_server.rollouts.tables import DeploymentRow, RolloutRow
from kedge_shared import wire
from kedge_shared.protocol import CONFIDENCE_BINS, Report, Verdict, Window

_UPDATES = 40
_REPORTS = 300
_STARTS = 4


@dataclass(frozen=True)
class Step:
    """A phase that a board reported.

    Attributes:
        phase: It.
        at: Unix seconds by the server's clock.
        verdict: Why.
    """

    phase: str
    at: float
    verdict: Verdict


@dataclass(frozen=True)
class Update:
    """A release that came to a board, or will.

    Attributes:
        row: The deployment.
        verdict: As last reported.
        steps: Phases in the order in which they were reported.
        state: Of the rollout.
    """

    row: DeploymentRow
    verdict: Verdict
    steps: tuple[Step, ...]
    state: str


@dataclass(frozen=True)
class Live:
    """A board's newest window.

    Attributes:
        at: Unix seconds of its report.
        window: It.
        p50_ms: Of frame time, or ``None``.
        p95_ms: The same.
        p99_ms: The same.
        frames_per_second: That reached the sink.
        release: That served.
    """

    at: float
    window: Window
    p50_ms: float | None
    p95_ms: float | None
    p99_ms: float | None
    frames_per_second: float
    release: str


def updates(session: Session, device: str) -> list[Update]:
    """Returns a board's deployments, newest first, with what it reported of each."""
    rows = session.exec(
        select(DeploymentRow)
        .where(DeploymentRow.device == device)
        .order_by(col(DeploymentRow.updated).desc())
        .limit(_UPDATES)
    ).all()
    wanted = {row.rollout for row in rows}
    query = select(RolloutRow.id, RolloutRow.state).where(col(RolloutRow.id).in_(wanted))
    states = dict(list(session.exec(query)))
    steps = _steps(session, device)
    return [
        Update(row, wire.decode(row.verdict.encode(), Verdict, "stored verdict"),
               tuple(steps.get(row.id, ())), states.get(row.rollout, ""))
        for row in rows
    ]  # fmt: skip


def _steps(session: Session, device: str) -> Mapping[str, Sequence[Step]]:
    found: dict[str, list[Step]] = defaultdict(list)
    for row in reversed(_reports(session, device)):
        if not row.deployment:
            continue
        report = _read(row)
        steps = found[row.deployment]
        if not steps or steps[-1].phase != row.phase:
            steps.append(Step(row.phase, row.received, report.verdict))
    return found


def live(session: Session, device: str) -> Live | None:
    """Returns what a board last said of its frames, or ``None``."""
    for row in _reports(session, device):
        report = _read(row)
        if report.window is not None:
            return live_of(report, report.window, row.received)
    return None


def live_of(report: Report, window: Window, at: float) -> Live:
    """Returns a window as the page shows it. Pure."""
    held = window.latency_ms
    return Live(
        at=at, window=window, p50_ms=held.quantile(0.5), p95_ms=held.quantile(0.95),
        p99_ms=held.quantile(0.99), release=report.release,
        frames_per_second=window.frames / window.seconds if window.seconds else 0.0,
    )  # fmt: skip


def windows(session: Session, device: str) -> list[Point]:
    """Returns the frame times of a board's last windows, of its last starts, oldest first."""
    query = (
        select(LedgerRow.trace)
        .where(LedgerRow.device == device, LedgerRow.trace != "")
        .order_by(col(LedgerRow.received).desc())
        .limit(_STARTS)
    )
    return trace.read(session.exec(query))


def drawn(found: Sequence[Point]) -> str:
    """Returns the line that a page begins with and goes on with; empty for none. Pure."""
    if not found:
        return ""
    lines = [
        {"label": name, "values": [getattr(each, name) for each in found]}
        for name in ("p50", "p95", "p99")
    ]
    return json.dumps({"unit": "ms", "at": [each.at for each in found], "lines": lines})


def confidence(window: Window) -> list[tuple[str, int]]:
    """Returns how many detections there are by confidence, ten bins of it. Pure."""
    counts = window.confidence
    if not counts:
        return []
    wide = [*counts, *[0] * (CONFIDENCE_BINS - len(counts))]
    return [(f"{at / CONFIDENCE_BINS:.1f}", wide[at] + wide[at + 1])
            for at in range(0, CONFIDENCE_BINS, 2)]  # fmt: skip


def figures(verdict: Verdict) -> list[tuple[str, str]]:
    """Returns the figures behind a verdict, in words. Pure."""
    return [(key.replace("_", " "), _figure(value)) for key, value in verdict.evidence.items()]


def _figure(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _reports(session: Session, device: str) -> Sequence[ReportRow]:
    query = (
        select(ReportRow)
        .where(ReportRow.device == device)
        .order_by(col(ReportRow.received).desc(), col(ReportRow.seq).desc())
        .limit(_REPORTS)
    )
    return list(session.exec(query))


def _read(row: ReportRow) -> Report:
    return wire.decode(row.body.encode(), Report, "stored report")
