"""Moves rollouts on: every change is one compare-and-set, told in the audit log."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from typing import Any

from sqlalchemy import CursorResult, update
from sqlmodel import Session, col, select

from kedge_server.audit.service import record
from kedge_server.devices.tables import DeviceRow
from kedge_server.releases.tables import BuildRow
from kedge_server.rollouts.gates import Decision, DeploymentFacts, judge
from kedge_server.rollouts.stages import RolloutEvent, advance
from kedge_server.rollouts.tables import DeploymentRow, RolloutRow, StageRow
from kedge_shared import wire
from kedge_shared.api import RolloutSpec, RolloutState
from kedge_shared.ids import fresh_id
from kedge_shared.phases import TERMINAL, Phase
from kedge_shared.protocol import Report, Verdict

SCHEDULER = "scheduler"


def tick(session: Session, now: float) -> bool:
    """Looks at every running rollout; says whether anything changed."""
    query = select(RolloutRow).where(col(RolloutRow.state).in_(["running", "paused"]))
    changed = False
    for rollout in session.exec(query).all():
        changed = _look(session, rollout, now) or changed
    return changed


def _look(session: Session, rollout: RolloutRow, now: float) -> bool:
    stages = stages_of(session, rollout.id)
    current = next((each for each in stages if each.state == "running"), None)
    if current is None:
        return False
    spec = spec_of(rollout)
    cohort = facts_of(session, rollout.id)
    decision = judge(spec.stages[current.index].gate, cohort, now)
    told = (current.verdict, current.reason) != (decision.verdict, decision.reason)
    current.verdict, current.reason = decision.verdict, decision.reason
    session.add(current)
    if decision.verdict == "fail":
        return _fail(session, rollout, current, decision, now)
    if decision.verdict == "pass" and rollout.state == "running":
        return _pass(session, rollout, stages, current, decision, now)
    return told


def _fail(
    session: Session, rollout: RolloutRow, stage: StageRow, decision: Decision, now: float
) -> bool:
    stage.state, stage.finished = "failed", now
    session.add(stage)
    why = f"stage {stage.percent:g} %: {decision.reason}"
    return move(session, rollout, RolloutEvent.GATE_FAILED, why, SCHEDULER, now)


def _pass(
    session: Session,
    rollout: RolloutRow,
    stages: Sequence[StageRow],
    stage: StageRow,
    decision: Decision,
    now: float,
) -> bool:
    stage.state, stage.finished = "passed", now
    session.add(stage)
    if stage.index + 1 == len(stages):
        return move(session, rollout, RolloutEvent.LAST_PASSED, decision.reason, SCHEDULER, now)
    why = f"stage {stage.percent:g} % passed: {decision.reason}"
    if not move(session, rollout, RolloutEvent.STAGE_PASSED, why, SCHEDULER, now):
        return False
    begin_stage(session, rollout, stages[stage.index + 1], now)
    return True


def begin_stage(session: Session, rollout: RolloutRow, stage: StageRow, now: float) -> None:
    """Assigns a stage's devices."""
    stage.state, stage.started = "running", now
    session.add(stage)
    session.flush()
    statement = (
        update(DeploymentRow)
        .where(col(DeploymentRow.rollout) == rollout.id, col(DeploymentRow.stage) == stage.index)
        .values(assigned=now, updated=now)
    )
    session.execute(statement)


def move(
    session: Session, rollout: RolloutRow, event: RolloutEvent, reason: str, who: str, now: float
) -> bool:
    """Changes a rollout's state if the table allows it and nobody was faster.

    Returns:
        Whether it was changed.
    """
    seen: Any = rollout.state
    after: RolloutState | None = advance(seen, event)
    if after is None:
        return False
    finished = now if after in {"completed", "halted"} else None
    session.flush()
    changed: CursorResult[Any] = session.execute(  # type: ignore[assignment]
        update(RolloutRow)
        .where(col(RolloutRow.id) == rollout.id, col(RolloutRow.state) == seen)
        .values(state=after, reason=reason, finished=finished)
    )
    if changed.rowcount != 1:
        return False
    session.refresh(rollout)
    record(session, who, f"rollout {event.value}", rollout.id, reason)
    return True


def reported(session: Session, report: Report, device: str, now: float) -> None:
    """Takes a report about a deployment; an older one never moves it back."""
    row = session.get(DeploymentRow, report.deployment)
    if row is None or row.device != device:
        return
    if row.boot_id == report.boot_id and report.seq <= row.seq:
        return
    if Phase(row.phase) in TERMINAL and report.phase not in TERMINAL | {Phase.ROLLING_BACK}:
        return
    row.boot_id, row.seq, row.updated = report.boot_id, report.seq, now
    row.phase = report.phase.value
    row.verdict = wire.encode(report.verdict).decode()
    if report.phase is Phase.CONFIRMED:
        row.confirmed = row.confirmed or now
    session.add(row)
    session.flush()
    if report.phase in {Phase.ROLLED_BACK, Phase.REFUSED}:
        _late_failure(session, row, now)


def _late_failure(session: Session, row: DeploymentRow, now: float) -> None:
    """A rollback after the gate had passed reopens it."""
    rollout = find_row(session, row.rollout)
    if rollout is None or rollout.state != "completed":
        return
    gate = spec_of(rollout).stages[-1].gate
    decision = judge(gate, facts_of(session, rollout.id), now)
    if decision.verdict == "fail":
        move(session, rollout, RolloutEvent.LATE_FAILURE, decision.reason, SCHEDULER, now)


def late_device(session: Session, device: DeviceRow, now: float) -> None:
    """Gives a device that joins late what the fleet's newest completed full rollout brought."""
    query = (
        select(RolloutRow)
        .where(RolloutRow.state == "completed")
        .order_by(col(RolloutRow.order).desc())
    )
    for rollout in session.exec(query):
        spec = spec_of(rollout)
        tags = json.loads(device.tags)
        fits = all(tags.get(key) == value for key, value in spec.tags.items())
        build = session.get(BuildRow, (rollout.model, rollout.release, device.device_class))
        if spec.stages[-1].percent < 100 or not fits or build is None:
            continue
        known = select(DeploymentRow).where(
            DeploymentRow.rollout == rollout.id, DeploymentRow.device == device.id
        )
        if session.exec(known).first() is None:
            session.add(new_deployment(rollout, device.id, len(spec.stages) - 1, now, now))
        return


def new_deployment(
    rollout: RolloutRow, device: str, stage: int, now: float, assigned: float | None = None
) -> DeploymentRow:
    """Returns a deployment that has not begun."""
    return DeploymentRow(
        id=fresh_id("de"), rollout=rollout.id, device=device, stage=stage, model=rollout.model,
        release=rollout.release, verdict=wire.encode(Verdict(code="ok")).decode(),
        assigned=assigned, updated=now,
    )  # fmt: skip


def facts_of(session: Session, rollout: str) -> list[DeploymentFacts]:
    """Returns what a gate knows: every deployment that was assigned."""
    query = select(DeploymentRow).where(
        DeploymentRow.rollout == rollout, col(DeploymentRow.assigned).is_not(None)
    )
    return [facts_from(each) for each in session.exec(query)]


def facts_from(row: DeploymentRow) -> DeploymentFacts:
    """Returns what a gate knows of one deployment."""
    return DeploymentFacts(
        device=row.device, phase=Phase(row.phase), verdict=verdict_of(row),
        assigned=row.assigned or time.time(), confirmed=row.confirmed,
    )  # fmt: skip


def verdict_of(row: DeploymentRow) -> Verdict:
    """Returns a deployment's verdict."""
    return wire.decode(row.verdict.encode(), Verdict, "stored verdict")


def spec_of(rollout: RolloutRow) -> RolloutSpec:
    """Returns what the operator asked for."""
    return wire.decode(rollout.spec.encode(), RolloutSpec, "stored rollout")


def stages_of(session: Session, rollout: str) -> list[StageRow]:
    """Returns a rollout's stages in order."""
    query = select(StageRow).where(StageRow.rollout == rollout).order_by(col(StageRow.index))
    return list(session.exec(query))


def find_row(session: Session, rollout: str) -> RolloutRow | None:
    """Returns a rollout, or ``None``."""
    found: RolloutRow | None = session.exec(
        select(RolloutRow).where(RolloutRow.id == rollout)
    ).first()
    return found
