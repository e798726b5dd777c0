"""Boards that get the release again: by themselves if they could not decide, else when told to."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from sqlalchemy import CursorResult, update
from sqlmodel import Session, col, select

from kedge_server.replicas import changes
from kedge_server.rollouts.facts import Standing, standing
from kedge_server.rollouts.knowledge import facts_from, verdict_of
from kedge_server.rollouts.tables import DeploymentRow, RolloutRow
from kedge_shared import wire
from kedge_shared.ids import fresh_id
from kedge_shared.protocol import Verdict
from kedge_shared.rollouts import GateSpec, RetrySpec


def due(
    session: Session, rollout: RolloutRow, policy: RetrySpec, gate: GateSpec, now: float
) -> list[DeploymentRow]:
    """Returns deployments that the retry policy gives another attempt now."""
    found = []
    for row in _ended(session, rollout.id):
        wait = policy.backoff_seconds * 2 ** (row.attempt - 1)
        if row.attempt >= policy.limit or now - row.updated < wait:
            continue
        undecided = standing(facts_from(row), gate, now) is Standing.UNDECIDED
        if undecided and verdict_of(row).code in policy.codes:
            found.append(row)
    return found


def failed(
    session: Session, rollout: RolloutRow, gate: GateSpec, now: float
) -> list[DeploymentRow]:
    """Returns deployments that ended without proof of health."""
    against = {Standing.FAILED, Standing.UNDECIDED}
    return [
        row for row in _ended(session, rollout.id)
        if standing(facts_from(row), gate, now) in against
    ]  # fmt: skip


def again(session: Session, rows: Iterable[DeploymentRow], now: float) -> int:
    """Makes a new deployment in the place of each; the old one stays on record."""
    count = 0
    for row in rows:
        fresh = DeploymentRow(
            id=fresh_id("de"), rollout=row.rollout, device=row.device, stage=row.stage,
            model=row.model, release=row.release, assigned=now, updated=now,
            verdict=wire.encode(Verdict(code="ok")).decode(), attempt=row.attempt + 1,
            retry_of=row.id, baseline_p95_ms=row.baseline_p95_ms,
        )  # fmt: skip
        session.flush()
        taken: CursorResult[Any] = session.execute(  # type: ignore[assignment]
            update(DeploymentRow)
            .where(col(DeploymentRow.id) == row.id, col(DeploymentRow.retried_by).is_(None))
            .values(retried_by=fresh.id)
        )
        if taken.rowcount == 1:
            session.add(fresh)
            changes.note(session, "rollout", row.rollout)
            count += 1
    session.flush()
    return count


def _ended(session: Session, rollout: str) -> list[DeploymentRow]:
    """Returns the newest attempts that were refused or rolled back; silent boards are at work."""
    query = select(DeploymentRow).where(
        DeploymentRow.rollout == rollout,
        col(DeploymentRow.retried_by).is_(None),
        col(DeploymentRow.phase).in_(["refused", "rolled_back"]),
    )
    return list(session.exec(query))
