"""Writes and reads the audit log."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Sequence

from sqlmodel import Session, col, select

from kedge_server.audit.tables import AuditRow
from kedge_server.database import exclusive

_FIRST = "0" * 64


def record(session: Session, actor: str, action: str, subject: str, detail: str = "") -> None:
    """Appends a row within the transaction of what it tells of."""
    # The chain has one end: who appends waits for who is at it.
    exclusive(session, "audit")
    last = session.exec(select(AuditRow).order_by(col(AuditRow.id).desc()).limit(1)).first()
    previous = last.hash if last else _FIRST
    at = time.time()
    row = AuditRow(
        at=at, actor=actor, action=action, subject=subject, detail=detail, previous=previous,
        hash=chain(previous, at, actor, action, subject, detail),
    )  # fmt: skip
    session.add(row)
    session.flush()


def chain(previous: str, *parts: float | str) -> str:
    """Returns a row's hash: over the one before it and everything it says."""
    return hashlib.sha256(json.dumps([previous, *parts]).encode()).hexdigest()


def broken_at(rows: Sequence[AuditRow]) -> int | None:
    """Returns the id of the first row that was altered, or ``None``."""
    previous = _FIRST
    for row in rows:
        expected = chain(previous, row.at, row.actor, row.action, row.subject, row.detail)
        if row.previous != previous or row.hash != expected:
            return row.id
        previous = row.hash
    return None


def newest(session: Session, most: int) -> list[AuditRow]:
    """Returns the newest rows, newest first."""
    return list(session.exec(select(AuditRow).order_by(col(AuditRow.id).desc()).limit(most)))
