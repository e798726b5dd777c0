"""What boards say of a rollout: reports, frame times, and boards that join."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass, fields
from typing import Any

from sqlalchemy import Row, bindparam, update
from sqlalchemy import select as select_columns
from sqlmodel import Session, col, select

from kedge_server.devices.tables import DeviceRow
from kedge_server.events import kinds
from kedge_server.events.service import Event, emit_all
from kedge_server.rollouts import progress, slots
from kedge_server.rollouts.knowledge import spec_of
from kedge_server.rollouts.membership import OPEN_ROLLOUTS, stage_for, takes
from kedge_server.rollouts.tables import DEPLOYMENTS, DeploymentRow, RolloutRow
from kedge_shared import wire
from kedge_shared.ids import fresh_id
from kedge_shared.phases import TERMINAL, Phase
from kedge_shared.protocol import Report, Verdict

#: From here on a board fetches nothing more.
_FETCHED = frozenset({Phase.VERIFYING, *TERMINAL})
_UNTOUCHED = wire.encode(Verdict(code="ok")).decode()


@dataclass(frozen=True)
class _Heard:
    """What is known of a deployment from its board; fields as the columns of the same names."""

    boot_id: str
    seq: int
    phase: str
    verdict: str
    updated: float
    begun: float | None
    confirmed: float | None
    agreement: float | None


_KNOWN = ("id", "device", "rollout", "model", "release")
_HEARD = tuple(each.name for each in fields(_Heard))
_UPDATE = update(DEPLOYMENTS).where(DEPLOYMENTS.c.id == bindparam("key"))


def take(session: Session, reports: Sequence[Report], now: float) -> None:
    """Takes what a batch of reports says of deployments; an older one never moves one back.

    Past the ORM, which would make an object of each and write it alone.
    """
    names = {each.deployment for each in reports if each.deployment}
    rows = {each.id: each for each in _rows(session, names)}
    last = {name: _Heard(*(row._mapping[each] for each in _HEARD)) for name, row in rows.items()}
    changed: dict[str, _Heard] = {}
    moved: list[tuple[Row[Any], Report]] = []
    for report in reports:
        row = rows.get(report.deployment)
        if row is None or row.device != report.device:
            continue
        heard = _hear(last[report.deployment], report, now)
        if heard is None:
            continue
        if heard.phase != last[report.deployment].phase:
            moved.append((row, report))
        last[report.deployment] = changed[report.deployment] = heard
    _tell(session, moved, now)
    if changed:
        values = [{"key": name, **vars(each)} for name, each in changed.items()]
        session.connection().execute(_UPDATE, values)
        session.expire_all()
    ended = {Phase.ROLLED_BACK.value, Phase.REFUSED.value}
    for rollout in {rows[name].rollout for name, each in changed.items() if each.phase in ended}:
        _late_failure(session, rollout, now)
    measured(session, [each for each in reports if each.window is not None])


def _tell(session: Session, moved: Sequence[tuple[Row[Any], Report]], now: float) -> None:
    """Frees slots of boards that need none any more, and tells of ends that they came to."""
    slots.release(session, {each.device for _, each in moved if each.phase in _FETCHED}, now)
    ended = [(row, each) for row, each in moved if each.phase in kinds.DEVICE]
    emit_all(session, [_event(row, each) for row, each in ended], now)


def _event(row: Row[Any], report: Report) -> Event:
    said = report.verdict
    data = {"deployment": row.id, "rollout": row.rollout, "model": row.model,
            "release": row.release, "code": said.code, "cause": said.cause,
            "reason": said.reason}  # fmt: skip
    return Event(kinds.DEVICE[report.phase], report.device, data)


def _hear(last: _Heard, report: Report, now: float) -> _Heard | None:
    """Returns what is known after a report, or ``None`` where it tells nothing new."""
    if last.boot_id == report.boot_id and report.seq <= last.seq:
        return None
    if Phase(last.phase) in TERMINAL and report.phase not in TERMINAL | {Phase.ROLLING_BACK}:
        return None
    agreement = report.verdict.evidence.get("agreement")
    told = isinstance(agreement, float | int) and 0 <= agreement <= 1
    confirmed = now if report.phase is Phase.CONFIRMED else None
    return _Heard(
        boot_id=report.boot_id, seq=report.seq, phase=report.phase.value,
        verdict=wire.encode(report.verdict).decode(), updated=now, begun=last.begun or now,
        confirmed=last.confirmed or confirmed,
        agreement=float(agreement) if told and agreement is not None else last.agreement,
    )  # fmt: skip


def _rows(session: Session, names: Collection[str]) -> Sequence[Row[Any]]:
    if not names:
        return []
    session.flush()
    query = select_columns(*(DEPLOYMENTS.c[each] for each in (*_KNOWN, *_HEARD)))
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
        session.connection().execute(_UPDATE, values)
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


def _late_failure(session: Session, name: str, now: float) -> None:
    """A rollback after the gate had passed reopens it."""
    # Waits for a look that is about to end the rollout: of the two the later one sees both.
    query = select(RolloutRow).where(RolloutRow.id == name).with_for_update(key_share=True)
    rollout = session.exec(query.execution_options(populate_existing=True)).first()
    if rollout is not None:
        progress.reopen(session, rollout, now)


def late_device(session: Session, device: DeviceRow, now: float) -> None:
    """Takes a device that joins late into the open rollout that is for it.

    Beyond it the device gets what the fleet's newest completed full rollout brought.
    """
    join(session, device, _newest(session, OPEN_ROLLOUTS), now)
    for rollout in _newest(session, ("completed",)):
        spec = spec_of(rollout)
        if spec.stages[-1].percent != 100 or not takes(session, spec, device):
            continue
        if not _has(session, rollout, device):
            session.add(new_deployment(rollout, device.id, len(spec.stages) - 1, now, now))
        return


def retagged(session: Session, devices: Collection[str], now: float) -> None:
    """Takes devices whose tags have changed into the open rollouts that select them by now."""
    rollouts = _newest(session, OPEN_ROLLOUTS)
    if not rollouts:
        return
    for name in devices:
        device = session.get(DeviceRow, name)
        if device is not None and device.serves and device.revoked is None:
            join(session, device, rollouts, now)


def join(session: Session, device: DeviceRow, rollouts: Sequence[RolloutRow], now: float) -> None:
    """Takes a device into the first of the open rollouts that is for it, unless one has it.

    The rollout's stages grow with it, and it is reached with the stage that has room.
    """
    if any(_has(session, each, device) for each in rollouts):
        return
    for rollout in rollouts:
        spec = spec_of(rollout)
        stage = None
        if takes(session, spec, device):
            stage = stage_for(session, rollout, spec, device)
        if stage is not None:
            session.add(new_deployment(rollout, device.id, stage, now))
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
