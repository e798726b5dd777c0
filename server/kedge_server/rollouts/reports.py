"""What boards say of a rollout: reports, frame times, and boards that join."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlmodel import Session, col, select

from kedge_server.devices.tables import DeviceRow
from kedge_server.events import kinds
from kedge_server.events.service import emit
from kedge_server.rollouts import evidence, slots
from kedge_server.rollouts.evidence import Evidence
from kedge_server.rollouts.gates import judge
from kedge_server.rollouts.knowledge import facts_of, find_row, spec_of, stages_of
from kedge_server.rollouts.membership import OPEN_ROLLOUTS, stage_for, takes
from kedge_server.rollouts.moves import move
from kedge_server.rollouts.progress import SCHEDULER
from kedge_server.rollouts.stages import RolloutEvent
from kedge_server.rollouts.tables import DeploymentRow, RolloutRow
from kedge_shared import wire
from kedge_shared.ids import fresh_id
from kedge_shared.phases import TERMINAL, Phase
from kedge_shared.protocol import Report, Verdict, Window

#: From here on a board fetches nothing more.
_FETCHED = frozenset({Phase.VERIFYING, *TERMINAL})
_UNTOUCHED = wire.encode(Verdict(code="ok")).decode()


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
    before, row.phase = row.phase, report.phase.value
    row.verdict = wire.encode(report.verdict).decode()
    row.begun = row.begun or now
    agreement = report.verdict.evidence.get("agreement")
    if isinstance(agreement, float | int) and 0 <= agreement <= 1:
        row.agreement = float(agreement)
    if report.phase is Phase.CONFIRMED:
        row.confirmed = row.confirmed or now
    session.add(row)
    session.flush()
    # Telemetry of a board that stands where it stood tells nothing new.
    if row.phase != before:
        _tell(session, row, report, now)
    if report.phase in {Phase.ROLLED_BACK, Phase.REFUSED}:
        _late_failure(session, row, now)


def _tell(session: Session, row: DeploymentRow, report: Report, now: float) -> None:
    if report.phase in _FETCHED:
        slots.release(session, row.device, now)
    if report.phase in kinds.DEVICE:
        said = report.verdict
        data = {"deployment": row.id, "rollout": row.rollout, "model": row.model,
                "release": row.release, "code": said.code, "cause": said.cause,
                "reason": said.reason}  # fmt: skip
        emit(session, kinds.DEVICE[report.phase], row.device, data, now)


def measured(session: Session, report: Report, window: Window) -> None:
    """Takes a window of frame times into the rollouts that the board is part of.

    A board that has the release is measured by it, one that was not reached is what those are
    compared with. The first figure after the proof of health stands.
    """
    p95 = window.latency_ms.quantile(0.95)
    query = (
        select(DeploymentRow)
        .join(RolloutRow, col(RolloutRow.id) == col(DeploymentRow.rollout))
        .where(DeploymentRow.device == report.device)
        .where(col(RolloutRow.state).in_(OPEN_ROLLOUTS))
    )
    for row in session.exec(query):
        if row.assigned is None:
            row.after_p95_ms = row.after_p95_ms or p95
        elif row.id == report.deployment and report.phase is Phase.CONFIRMED:
            row.after_p95_ms = row.after_p95_ms or p95
            row.latency_p95_ms = p95
            row.error_share = window.errors / window.frames if window.frames else None
        session.add(row)


def _late_failure(session: Session, row: DeploymentRow, now: float) -> None:
    """A rollback after the gate had passed reopens it."""
    rollout = find_row(session, row.rollout)
    if rollout is None or rollout.state not in {"completed", "stopped"}:
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


def late_device(session: Session, device: DeviceRow, now: float) -> None:
    """Takes a device that joins late into the open rollouts that are for it.

    Their stages grow with it, and it is reached with the stage that has room. Beyond them it gets
    what the fleet's newest completed full rollout brought.
    """
    for rollout in _newest(session, OPEN_ROLLOUTS):
        spec = spec_of(rollout)
        if _has(session, rollout, device) or not takes(session, spec, device):
            continue
        stage = stage_for(session, rollout, spec, device)
        if stage is not None:
            session.add(new_deployment(rollout, device.id, stage, now))
            break
    for rollout in _newest(session, ("completed",)):
        spec = spec_of(rollout)
        if spec.stages[-1].percent != 100 or not takes(session, spec, device):
            continue
        if not _has(session, rollout, device):
            session.add(new_deployment(rollout, device.id, len(spec.stages) - 1, now, now))
        return


def _newest(session: Session, states: Sequence[str]) -> Sequence[RolloutRow]:
    query = select(RolloutRow).where(col(RolloutRow.state).in_(states))
    if states == OPEN_ROLLOUTS:
        query = query.order_by(col(RolloutRow.priority).desc())
    return list(session.exec(query.order_by(col(RolloutRow.order).desc())))


def _has(session: Session, rollout: RolloutRow, device: DeviceRow) -> bool:
    known = select(DeploymentRow).where(
        DeploymentRow.rollout == rollout.id, DeploymentRow.device == device.id
    )
    return session.exec(known).first() is not None


def new_deployment(
    rollout: RolloutRow, device: str, stage: int, now: float, assigned: float | None = None
) -> DeploymentRow:
    """Returns a deployment that has not begun."""
    return DeploymentRow(**deployment_values(rollout, device, stage, now), assigned=assigned)


def deployment_values(rollout: RolloutRow, device: str, stage: int, now: float) -> dict[str, Any]:
    """Returns the columns of a deployment that has not begun, for inserts by the thousand."""
    return {
        "id": fresh_id("de"), "rollout": rollout.id, "device": device, "stage": stage,
        "model": rollout.model, "release": rollout.release, "verdict": _UNTOUCHED, "updated": now,
        "phase": Phase.IDLE.value, "boot_id": "", "seq": -1,
    }  # fmt: skip
