"""Moves rollouts on: every change is one compare-and-set, told in the audit log."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import CursorResult, update
from sqlalchemy import select as select_columns
from sqlmodel import Session, col, func, select

from kedge_server.devices.tables import DeviceRow
from kedge_server.replicas import changes
from kedge_server.rollouts import evidence, retries
from kedge_server.rollouts.decision import Decision
from kedge_server.rollouts.evidence import Evidence
from kedge_server.rollouts.gates import judge
from kedge_server.rollouts.knowledge import facts_of, find_row, spec_of, stages_of
from kedge_server.rollouts.membership import OPEN_ROLLOUTS
from kedge_server.rollouts.moves import hold, move, move_stage
from kedge_server.rollouts.stages import OPEN, RolloutEvent, StageEvent, step
from kedge_server.rollouts.tables import DeploymentRow, RolloutRow, StageRow
from kedge_shared import wire
from kedge_shared.rollouts import RolloutSpec

SCHEDULER = "scheduler"
#: What a rollback that comes late halts.
_REOPENED = frozenset({"completed", "stopped"})


def open_rollouts(session: Session) -> list[str]:
    """Returns the rollouts that want to be looked at, oldest first."""
    query = select(RolloutRow.id).where(col(RolloutRow.state).in_(OPEN_ROLLOUTS))
    return list(session.exec(query.order_by(col(RolloutRow.order))))


def look(session: Session, name: str, now: float) -> bool:
    """Judges a rollout's open stage and acts on it; says whether anything changed."""
    rollout = find_row(session, name)
    if rollout is None or rollout.state not in OPEN_ROLLOUTS:
        return False
    stages, spec = stages_of(session, rollout.id), spec_of(rollout)
    current = next((each for each in stages if each.state in OPEN), None)
    if current is None and rollout.state != "proposed":
        return False
    if _overdue(rollout, spec, now):
        why = f"the deadline of {spec.deadline_hours:g} h is over"
        return end(session, rollout, RolloutEvent.OVERDUE, why, SCHEDULER, now)
    return current is not None and _judge(session, rollout, spec, stages, current, now)


def end(
    session: Session, rollout: RolloutRow, event: RolloutEvent, why: str, who: str, now: float
) -> bool:
    """Ends a rollout, unless somebody was faster, and judges what boards said meanwhile."""
    if not move(session, rollout, event, why, who, now):
        return False
    reopen(session, rollout, now)
    return True


def reopen(session: Session, rollout: RolloutRow, now: float) -> None:
    """Halts a rollout that is over if by now its boards fail the gate that it had passed.

    Asked when a board rolls back after the end, and at the end itself: what was said between the
    reading of the last look and its writing found the rollout still running.
    """
    if rollout.state not in _REOPENED:
        return
    stages = stages_of(session, rollout.id)
    reached = max((each.index for each in stages if each.state != "waiting"), default=0)
    gate = spec_of(rollout).stages[reached].gate
    facts = facts_of(session, rollout.id, stages, reached)
    decision = judge(gate, facts, now)
    if decision.verdict == "fail" and move(
        session, rollout, RolloutEvent.LATE_FAILURE, decision.reason, SCHEDULER, now
    ):
        evidence.keep(session, rollout.id, reached, Evidence(gate, facts, now, decision))


def _judge(
    session: Session, rollout: RolloutRow, spec: RolloutSpec, stages: Sequence[StageRow],
    current: StageRow, now: float,
) -> bool:  # fmt: skip
    """Judges the open stage and acts on it; says whether anything changed."""
    stage = spec.stages[current.index]
    filled = rollout.state == "running" and _keep_going(session, rollout, spec, current, now)
    facts = facts_of(session, rollout.id, stages, current.index)
    waiting = _waiting(session, rollout.id, current.index)
    decision = judge(stage.gate, facts, now)
    event = step(stage, decision)
    if waiting and event is not StageEvent.FAIL:
        # The stage is not whole: what it proves so far is no pass.
        event = None
    if event is None and current.state == "asking":
        event = StageEvent.REOPEN
    if rollout.state != "running" and event is not StageEvent.FAIL:
        event = None
    if event is not None and not hold(session, rollout):
        return filled  # what it has become meanwhile, the next look goes by
    told = _tell(session, current, decision, waiting if event is not StageEvent.FAIL else 0)
    if event is None:
        return told or filled
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


def _tell(session: Session, stage: StageRow, decision: Decision, waiting: int) -> bool:
    """Notes what a look has found, for people; says whether it is news."""
    verdict, reason = decision.verdict, decision.reason
    if waiting:
        verdict, reason = "undecided", f"{waiting} boards wait for the blast radius; {reason}"
    told = (stage.verdict, stage.reason) != (verdict, reason)
    stage.verdict, stage.reason = verdict, reason
    stage.findings = wire.encode(decision.findings).decode()
    session.add(stage)
    return told


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
        end(session, rollout, RolloutEvent.LAST_PASSED, why.partition(": ")[2] or why, who, now)
    elif move(session, rollout, RolloutEvent.STAGE_PASSED, why, who, now):
        begin_stage(session, rollout, spec_of(rollout), stages[done.index + 1], now)


def begin_stage(
    session: Session, rollout: RolloutRow, spec: RolloutSpec, stage: StageRow, now: float
) -> None:
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
    fill(session, rollout, spec, stage.index, now)


def fill(session: Session, rollout: RolloutRow, spec: RolloutSpec, upto: int, now: float) -> int:
    """Assigns the boards of the stages that have begun, as many as the blast radius admits.

    Returns:
        How many were assigned.
    """
    if not _waiting(session, rollout.id, upto) or not hold(session, rollout):
        return 0
    mine = (
        col(DeploymentRow.rollout) == rollout.id,
        col(DeploymentRow.assigned).is_(None),
        col(DeploymentRow.stage) <= upto,
    )
    which: tuple[Any, ...] = mine
    if spec.blast_radius is not None:
        most = max(0, spec.blast_radius - _unproven(session, rollout.id))
        chosen = select_columns(col(DeploymentRow.id)).where(*mine).order_by(
            col(DeploymentRow.stage), col(DeploymentRow.id)
        ).limit(most)  # fmt: skip
        which = (col(DeploymentRow.assigned).is_(None), col(DeploymentRow.id).in_(chosen))
    done: CursorResult[Any] = session.execute(  # type: ignore[assignment]
        update(DeploymentRow)
        .where(*which)
        .values(assigned=now, updated=now)
        .execution_options(synchronize_session=False)
    )
    session.expire_all()
    if done.rowcount:
        changes.note(session, "rollout", rollout.id)
    return done.rowcount


def _keep_going(
    session: Session, rollout: RolloutRow, spec: RolloutSpec, current: StageRow, now: float
) -> bool:
    """Assigns boards that joined or were held back, tries others again; says if there were any."""
    filled = fill(session, rollout, spec, current.index, now)
    if spec.retry is not None:
        gate = spec.stages[current.index].gate
        due = retries.due(session, rollout, spec.retry, gate, now)
        if due and hold(session, rollout):
            filled += retries.again(session, due, now)
    return filled > 0


def _overdue(rollout: RolloutRow, spec: RolloutSpec, now: float) -> bool:
    hours = spec.deadline_hours
    return hours is not None and now - rollout.created > hours * 3600


def _waiting(session: Session, rollout: str, upto: int) -> int:
    """Returns how many boards of the stages that have begun were not assigned yet."""
    query = select_columns(func.count()).where(
        col(DeploymentRow.rollout) == rollout,
        col(DeploymentRow.assigned).is_(None),
        col(DeploymentRow.stage) <= upto,
    )
    return int(session.execute(query).scalar_one())


def _unproven(session: Session, rollout: str) -> int:
    """Returns how many boards have the release, or are getting it, and have not proven healthy."""
    query = select_columns(func.count()).where(
        col(DeploymentRow.rollout) == rollout,
        col(DeploymentRow.assigned).is_not(None),
        col(DeploymentRow.retried_by).is_(None),
        col(DeploymentRow.phase) != "confirmed",
    )
    return int(session.execute(query).scalar_one())
