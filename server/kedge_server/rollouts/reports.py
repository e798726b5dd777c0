"""What boards say of a rollout: reports, frame times, and boards that join."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import Row, bindparam, update
from sqlalchemy import select as select_columns
from sqlmodel import Session, col, select

from kedge_server.devices.tables import DeviceRow
from kedge_server.events import kinds
from kedge_server.events.service import emit
from kedge_server.rollouts import evidence
from kedge_server.rollouts.evidence import Evidence
from kedge_server.rollouts.gates import judge
from kedge_server.rollouts.knowledge import facts_of, find_row, spec_of, stages_of
from kedge_server.rollouts.membership import OPEN_ROLLOUTS, stage_for, takes
from kedge_server.rollouts.moves import move
from kedge_server.rollouts.progress import SCHEDULER
from kedge_server.rollouts.stages import RolloutEvent
from kedge_server.rollouts.tables import DEPLOYMENTS, DeploymentRow, RolloutRow
from kedge_shared import wire
from kedge_shared.ids import fresh_id
from kedge_shared.phases import TERMINAL, Phase
from kedge_shared.protocol import Report, Verdict

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
    row.phase = report.phase.value
    row.verdict = wire.encode(report.verdict).decode()
    row.begun = row.begun or now
    agreement = report.verdict.evidence.get("agreement")
    if isinstance(agreement, float | int) and 0 <= agreement <= 1:
        row.agreement = float(agreement)
    if report.phase is Phase.CONFIRMED:
        row.confirmed = row.confirmed or now
    session.add(row)
    session.flush()
    if report.phase in kinds.DEVICE:
        said = report.verdict
        data = {"deployment": row.id, "rollout": row.rollout, "model": row.model,
                "release": row.release, "code": said.code, "cause": said.cause,
                "reason": said.reason}  # fmt: skip
        emit(session, kinds.DEVICE[report.phase], device, data, now)
    if report.phase in {Phase.ROLLED_BACK, Phase.REFUSED}:
        _late_failure(session, row, now)


def take(session: Session, reports: Sequence[Report], now: float) -> None:
    """Takes what a batch of reports says of deployments: most say that nothing has changed.

    Those go past the ORM, which would make an object of each.
    """
    about = [each for each in reports if each.deployment]
    known = {each.id: each for each in _rows(session, {each.deployment for each in about})}
    last = {name: _Last(row.boot_id, row.seq, row.phase, row.verdict)
            for name, row in known.items()}  # fmt: skip
    unchanged: dict[str, dict[str, Any]] = {}
    for report in about:
        name, found = report.deployment, last.get(report.deployment)
        if found is None or known[name].device != report.device:
            continue
        if found.boot_id == report.boot_id and report.seq <= found.seq:
            continue
        verdict = wire.encode(report.verdict).decode()
        if (found.phase, found.verdict) == (report.phase.value, verdict) and known[name].begun:
            last[name] = replace(found, boot_id=report.boot_id, seq=report.seq)
            unchanged[name] = {"key": name, "boot_id": report.boot_id, "seq": report.seq,
                               "updated": now}  # fmt: skip
            continue
        unchanged.pop(name, None)
        reported(session, report, report.device, now)
        row = session.get_one(DeploymentRow, name)
        last[name] = _Last(row.boot_id, row.seq, row.phase, row.verdict)
    if unchanged:
        session.flush()
        session.connection().execute(_UNCHANGED, list(unchanged.values()))
    measured(session, [each for each in reports if each.window is not None])


@dataclass(frozen=True)
class _Last:
    """The newest that was heard of a deployment."""

    boot_id: str
    seq: int
    phase: str
    verdict: str


_UNCHANGED = update(DEPLOYMENTS).where(DEPLOYMENTS.c.id == bindparam("key"))
_MEASURED = update(DEPLOYMENTS).where(DEPLOYMENTS.c.id == bindparam("key"))


def _rows(session: Session, names: Collection[str]) -> Sequence[Row[Any]]:
    if not names:
        return []
    columns = ("id", "device", "boot_id", "seq", "phase", "verdict", "begun")
    query = select_columns(*(DEPLOYMENTS.c[each] for each in columns))
    return session.execute(query.where(DEPLOYMENTS.c.id.in_(names))).all()


def measured(session: Session, reports: Sequence[Report]) -> None:
    """Takes windows of frame times into the rollouts that their boards are part of.

    A board that has the release is measured by it, one that was not reached is what those are
    compared with. The first figure after the proof of health stands.
    """
    if not reports:
        return
    session.flush()
    columns = ("id", "device", "assigned", "after_p95_ms", "latency_p95_ms", "error_share")
    query = (
        select_columns(*(DEPLOYMENTS.c[each] for each in columns))
        .join(RolloutRow, col(RolloutRow.id) == DEPLOYMENTS.c.rollout)
        .where(DEPLOYMENTS.c.device.in_({each.device for each in reports}))
        .where(col(RolloutRow.state).in_(OPEN_ROLLOUTS))
    )
    found: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in session.execute(query):
        found[row.device].append({**row._mapping, "key": row.id})
    changed: dict[str, dict[str, Any]] = {}
    for report in reports:
        for each in found[report.device]:
            if _measure(each, report):
                changed[each["key"]] = each
    if changed:
        kept = ("key", "after_p95_ms", "latency_p95_ms", "error_share")
        values = [{name: each[name] for name in kept} for each in changed.values()]
        session.connection().execute(_MEASURED, values)
        session.expire_all()


def _measure(row: dict[str, Any], report: Report) -> bool:
    """Takes a report's window into a deployment's columns; says whether they changed."""
    window = report.window
    if window is None:
        return False
    p95 = window.latency_ms.quantile(0.95)
    if row["assigned"] is None:
        row["after_p95_ms"] = row["after_p95_ms"] or p95
        return True
    if row["id"] != report.deployment or report.phase is not Phase.CONFIRMED:
        return False
    row["after_p95_ms"], row["latency_p95_ms"] = row["after_p95_ms"] or p95, p95
    row["error_share"] = window.errors / window.frames if window.frames else None
    return True


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
