"""Writes and reads the audit log."""

from __future__ import annotations

import time

from sqlmodel import Session, col, select

from kedge_server.audit.tables import AuditRow
from kedge_server.database import exclusive
from kedge_shared.audit import FIRST, AuditEntry, chain


def record(session: Session, actor: str, action: str, subject: str, detail: str = "") -> None:
    """Appends an entry within the transaction of what it tells of."""
    # The chain has one end: who appends waits for who is at it.
    exclusive(session, "audit")
    last = session.exec(select(AuditRow).order_by(col(AuditRow.id).desc()).limit(1)).first()
    previous = last.hash if last else FIRST
    at = time.time()
    row = AuditRow(
        at=at, actor=actor, action=action, subject=subject, detail=detail, previous=previous,
        hash=chain(previous, at, actor, action, subject, detail),
    )  # fmt: skip
    session.add(row)
    session.flush()


def newest(session: Session, most: int) -> list[AuditEntry]:
    """Returns the newest entries, newest first."""
    query = select(AuditRow).order_by(col(AuditRow.id).desc()).limit(most)
    return [_entry(each) for each in session.exec(query)]


def after(session: Session, entry: int, most: int) -> list[AuditEntry]:
    """Returns the entries after one, oldest first."""
    query = select(AuditRow).where(col(AuditRow.id) > entry).order_by(col(AuditRow.id)).limit(most)
    return [_entry(each) for each in session.exec(query)]


def _entry(row: AuditRow) -> AuditEntry:
    return AuditEntry(
        id=row.id or 0, at=row.at, actor=row.actor, action=row.action, subject=row.subject,
        detail=row.detail, previous=row.previous, hash=row.hash,
    )  # fmt: skip
