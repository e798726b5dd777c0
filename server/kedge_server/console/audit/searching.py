"""Finds entries of the audit log: each page looks at a bounded number of them, however long it is.

Entries are numbered as they are written, so that a time is a number: it is found by halving, along
the primary key. A page that looked at so many rows without finding enough says how far it looked.
"""

from __future__ import annotations

from dataclasses import dataclass

from sqlmodel import Session, col, func, or_, select
from sqlmodel.sql.expression import SelectOfScalar

from kedge_server.audit.tables import AuditRow

SHOWN = 50
#: Rows that one page looks at; under 100 ms of a core with SQLite.
LOOKED_AT = 20_000


@dataclass(frozen=True)
class Wanted:
    """What is looked for; what is empty or ``None`` is not asked.

    Attributes:
        who: A person with all tokens, or ``PERSON/TOKEN``.
        action: How the action begins.
        subject: How the subject begins.
        since: Unix seconds.
        until: Unix seconds.
    """

    who: str = ""
    action: str = ""
    subject: str = ""
    since: float | None = None
    until: float | None = None

    @property
    def anything(self) -> bool:
        """Nothing in particular is looked for."""
        return self == Wanted()


@dataclass(frozen=True)
class Found:
    """A page of entries.

    Attributes:
        entries: Newest first.
        following: Where the next page begins; ``None`` at the end.
        looked_back_to: When the oldest entry that was looked at was written, if the page ended
            before it was full; ``None`` otherwise.
    """

    entries: tuple[AuditRow, ...]
    following: int | None
    looked_back_to: float | None = None


def page(session: Session, wanted: Wanted, before: int | None) -> Found:
    """Returns entries, newest first.

    Args:
        session: Of the request.
        wanted: What is looked for.
        before: Only entries that were written before this one.
    """
    last = _newest(session)
    top = last if before is None else min(before - 1, last)
    if wanted.until is not None:
        top = min(top, _last_at(session, wanted.until, last))
    bottom = 1 if wanted.since is None else _last_at(session, wanted.since, last, strict=True) + 1
    low = max(bottom, top - LOOKED_AT + 1)
    query = _matching(wanted).where(col(AuditRow.id) <= top, col(AuditRow.id) >= low)
    rows = list(session.exec(query.order_by(col(AuditRow.id).desc()).limit(SHOWN + 1)))
    if len(rows) > SHOWN:
        return Found(tuple(rows[:SHOWN]), rows[SHOWN - 1].id)
    if low > bottom:
        return Found(tuple(rows), low, _time_of(session, low))
    return Found(tuple(rows), None)


def _matching(wanted: Wanted) -> SelectOfScalar[AuditRow]:
    query = select(AuditRow)
    if wanted.who:
        actor, tokens = col(AuditRow.actor), f"{wanted.who}/"
        query = query.where(or_(actor == wanted.who, actor.startswith(tokens, autoescape=True)))
    if wanted.action:
        query = query.where(col(AuditRow.action).startswith(wanted.action, autoescape=True))
    if wanted.subject:
        query = query.where(col(AuditRow.subject).startswith(wanted.subject, autoescape=True))
    return query


def _newest(session: Session) -> int:
    return session.exec(select(func.max(AuditRow.id))).one() or 0


def _last_at(session: Session, moment: float, last: int, *, strict: bool = False) -> int:
    """Returns the last entry that was written by a time (``strict``: before it); 0 for none."""
    low, high = 0, last
    while low < high:
        middle = (low + high + 1) // 2
        at = _time_of(session, middle)
        if at is not None and (at < moment if strict else at <= moment):
            low = middle
        else:
            high = middle - 1
    return low


def _time_of(session: Session, entry: int) -> float | None:
    """Returns when an entry, or the next one that there is, was written."""
    query = select(AuditRow.at).where(col(AuditRow.id) >= entry).order_by(col(AuditRow.id))
    found: float | None = session.exec(query.limit(1)).first()
    return found
