"""Follows the audit log's chain from its first entry: ``kedge audit verify``, in the server."""

from __future__ import annotations

from collections.abc import Iterator

from sqlalchemy import select
from sqlmodel import Session, col

from kedge_server.audit.tables import AuditRow
from kedge_server.errors import MalformedError
from kedge_shared.audit import AuditEntry, Verified, verify

_PAGE = 2000
_DIGITS = 18
_COLUMNS = ("id", "at", "actor", "action", "subject", "detail", "previous", "hash")


def check(session: Session) -> Verified:
    """Follows the chain; a page of it is in memory at a time."""
    return verify(_entries(session))


def stands(session: Session, head: tuple[int, str]) -> bool:
    """Says whether a head is in the log; in a chain that holds, all before it is as it was."""
    row = session.get(AuditRow, head[0])
    return row is not None and row.hash.startswith(head[1])


def read_head(text: str) -> tuple[int, str] | None:
    """Reads ``ID:HASH`` that somebody wrote down; nothing is ``None``.

    Raises:
        MalformedError: It is none.
    """
    if not text.strip():
        return None
    ident, _, digest = text.strip().partition(":")
    if (
        not ident.isascii()
        or not ident.isdigit()
        or len(ident) > _DIGITS
        or not digest
        or set(digest) - set("0123456789abcdef")
    ):
        raise MalformedError("that is no head of the log", "write ID:HASH as this page shows it")
    return int(ident), digest


def _entries(session: Session) -> Iterator[AuditEntry]:
    columns = [getattr(AuditRow, each) for each in _COLUMNS]
    last = 0
    while True:
        query = select(*columns).where(col(AuditRow.id) > last).order_by(col(AuditRow.id))
        rows = session.execute(query.limit(_PAGE)).all()
        for row in rows:
            yield AuditEntry(**dict(zip(_COLUMNS, row, strict=True)))
        if len(rows) < _PAGE:
            return
        last = rows[-1][0]
