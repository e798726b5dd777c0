"""Moves rollouts on: every change is one compare-and-set, told in the audit log."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import select as select_columns
from sqlalchemy import update
from sqlmodel import Session, col, select

from kedge_server.devices.tables import DeviceRow
from kedge_server.rollouts import evidence
from kedge_server.rollouts.decision import Decision
from kedge_server.rollouts.evidence import Evidence
from kedge_server.rollouts.gates import judge
from kedge_server.rollouts.knowledge import facts_of, spec_of, stages_of
from kedge_server.rollouts.moves import move, move_stage
from kedge_server.rollouts.stages import OPEN, RolloutEvent, StageEvent, step
from kedge_server.rollouts.tables import DeploymentRow, RolloutRow, StageRow

SCHEDULER = "scheduler"


def tick(session: Session, now: float) -> bool:
    """Looks at every running rollout; says whether anything changed."""
    query = select(RolloutRow).where(col(RolloutRow.state).in_(["running", "paused"]))
    changed = False
    for rollout in session.exec(query).all():
        changed = look(session, rollout, now) or changed
    return changed


def look(session: Session, rollout: RolloutRow, now: float) -> bool:
    """Judges a rollout's open stage and acts on it; says whether anything changed."""
    stages = stages_of(session, rollout.id)
    current = next((each for each in stages if each.state in OPEN), None)
    if current is None:
        return False
    spec = spec_of(rollout)
    stage = spec.stages[current.index]
    facts = facts_of(session, rollout.id, stages, current.index)
    decision = judge(stage.gate, facts, now)
    told = (current.verdict, current.reason) != (decision.verdict, decision.reason)
    current.verdict, current.reason = decision.verdict, decision.reason
    session.add(current)
    event = step(stage, decision)
    if event is None and current.state == "asking":
        event = StageEvent.REOPEN
    if event is None or (rollout.state != "running" and event is not StageEvent.FAIL):
        return told
    if not move_stage(session, current, event, now):
        return told
    if event is not StageEvent.REOPEN:
        evidence.keep(session, rollout.id, current.index,
                      Evidence(stage.gate, facts, now, decision))  # fmt: skip
    title = f"stage {stage.title}"
    if event is StageEvent.FAIL:
        move(session, rollout, RolloutEvent.GATE_FAILED, f"{title}: {decision.reason}", SCHEDULER,
             now)  # fmt: skip
    elif event in {StageEvent.PASS, StageEvent.WIDEN}:
        go_on(session, rollout, stages, current, _passed(title, event, decision), SCHEDULER, now)
    return True


def _passed(title: str, event: StageEvent, decision: Decision) -> str:
    if event is StageEvent.WIDEN:
        return f"{title} undecided, widened: {decision.reason}"
    return f"{title} passed: {decision.reason}"


def go_on(
    session: Session, rollout: RolloutRow, stages: Sequence[StageRow], done: StageRow, why: str,
    who: str, now: float,
) -> None:  # fmt: skip
    """Begins the next stage, or completes the rollout after the last."""
    if done.index + 1 == len(stages):
        move(session, rollout, RolloutEvent.LAST_PASSED, why.partition(": ")[2] or why, who, now)
    elif move(session, rollout, RolloutEvent.STAGE_PASSED, why, who, now):
        begin_stage(session, rollout, stages[done.index + 1], now)


def begin_stage(session: Session, rollout: RolloutRow, stage: StageRow, now: float) -> None:
    """Assigns a stage's devices, and notes what frame times are compared with."""
    if not move_stage(session, stage, StageEvent.BEGIN, now):
        return
    own = (
        select_columns(col(DeviceRow.latency_p95_ms))
        .where(col(DeviceRow.id) == col(DeploymentRow.device))
        .scalar_subquery()
    )
    unreached = (col(DeploymentRow.rollout) == rollout.id, col(DeploymentRow.assigned).is_(None))
    session.execute(
        update(DeploymentRow)
        .where(*unreached)
        .values(baseline_p95_ms=own, after_p95_ms=None)
        .execution_options(synchronize_session=False)
    )
    session.execute(
        update(DeploymentRow)
        .where(*unreached, col(DeploymentRow.stage) == stage.index)
        .values(assigned=now, updated=now)
        .execution_options(synchronize_session=False)
    )
    session.expire_all()
