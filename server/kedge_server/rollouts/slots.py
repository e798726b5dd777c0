"""Admission of downloads: how many boards of a rollout fetch at a time, and begin in a minute."""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass

from sqlalchemy import delete, update
from sqlmodel import Session, col, func, select

from kedge_server.devices.tables import AssignmentRow
from kedge_server.rollouts.knowledge import spec_of
from kedge_server.rollouts.tables import DeploymentRow, DownloadRow, RolloutRow

#: What an admitted board may take beside the bytes themselves, and the slowest line it may have.
_GRACE_SECONDS, _SLOWEST_BYTES = 120.0, 50_000
_MINUTE = 60.0
_LEAST_WAIT, _LONGEST_WAIT = 5.0, 60.0


@dataclass(frozen=True)
class Queue:
    """How full a rollout's downloads are.

    Attributes:
        active: Boards that fetch now.
        begun: Boards that began within the last minute.
        slots: Boards that may fetch at a time, or ``None``.
        per_minute: Boards that may begin in a minute, or ``None``.
        next_slot: Seconds until a slot is free at the latest.
        next_begin: Seconds until fewer began within a minute.
    """

    active: int
    begun: int
    slots: int | None
    per_minute: int | None
    next_slot: float
    next_begin: float


def wait_seconds(queue: Queue) -> int:
    """Returns how long a board that wants to begin has to wait, seconds; 0 is: go on. Pure."""
    wait = 0.0
    if queue.slots is not None and queue.active >= queue.slots:
        wait = max(_LEAST_WAIT, queue.next_slot)
    if queue.per_minute is not None and queue.begun >= queue.per_minute:
        wait = max(wait, 1.0, queue.next_begin)
    return math.ceil(min(wait, _LONGEST_WAIT))


def admit(session: Session, device: str, length: int, now: float) -> int:
    """Admits a download, or says how long the board has to wait, seconds.

    A board that was admitted goes on: with further files, and after its line broke.

    Args:
        session: Of the request.
        device: Who asks.
        length: Bytes of the artifact.
        now: Unix seconds.
    """
    rollout = _rollout(session, device)
    if rollout is None:
        return 0
    spec = spec_of(rollout)
    if spec.download_slots is None and spec.downloads_per_minute is None:
        return 0
    # Takes the row's lock, and with SQLite the database's: who counts below is alone.
    session.execute(
        update(RolloutRow)
        .where(col(RolloutRow.id) == rollout.id)
        .values(priority=RolloutRow.priority)
        .execution_options(synchronize_session=False)
    )
    until = now + _GRACE_SECONDS + length / _SLOWEST_BYTES
    held = session.get(DownloadRow, device)
    if held is not None and held.rollout == rollout.id and held.until > now:
        held.until = max(held.until, until)
        session.add(held)
        return 0
    queue = _queue(session, rollout.id, spec.download_slots, spec.downloads_per_minute, now)
    wait = wait_seconds(queue)
    if not wait:
        row = held or DownloadRow(device=device, rollout="", begun=0.0, until=0.0)
        row.rollout, row.begun, row.until = rollout.id, now, until
        session.add(row)
    return wait


def release(session: Session, devices: Collection[str], now: float) -> None:
    """Frees boards' slots: they have fetched everything, or given up."""
    if not devices:
        return
    session.execute(
        update(DownloadRow)
        .where(col(DownloadRow.device).in_(devices), col(DownloadRow.until) > now)
        .values(until=now)
        .execution_options(synchronize_session=False)
    )


def trim(session: Session, now: float) -> None:
    """Forgets downloads that ended more than a minute ago."""
    session.execute(
        delete(DownloadRow).where(
            col(DownloadRow.until) <= now, col(DownloadRow.begun) < now - _MINUTE
        )
    )


def _rollout(session: Session, device: str) -> RolloutRow | None:
    query = (
        select(RolloutRow)
        .join(DeploymentRow, col(DeploymentRow.rollout) == col(RolloutRow.id))
        .join(AssignmentRow, col(AssignmentRow.deployment) == col(DeploymentRow.id))
        .where(AssignmentRow.device == device)
    )
    found: RolloutRow | None = session.exec(query).first()
    return found


def _queue(
    session: Session, rollout: str, slots: int | None, per_minute: int | None, now: float
) -> Queue:
    active, first = session.exec(
        select(func.count(), func.min(DownloadRow.until)).where(
            DownloadRow.rollout == rollout, col(DownloadRow.until) > now
        )
    ).one()
    begun, oldest = session.exec(
        select(func.count(), func.min(DownloadRow.begun)).where(
            DownloadRow.rollout == rollout, col(DownloadRow.begun) > now - _MINUTE
        )
    ).one()
    return Queue(
        active=active, begun=begun, slots=slots, per_minute=per_minute,
        next_slot=min((first or now) - now, _LEAST_WAIT * 2),
        next_begin=(oldest or now) + _MINUTE - now,
    )  # fmt: skip
