"""Writes events with what they tell of, reads them for those who follow."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import delete, insert, text
from sqlmodel import Session, col, func, select

from kedge_server.events.tables import EventRow
from kedge_server.webhooks import outbox
from kedge_shared import wire
from kedge_shared.events import EventInfo, matches

#: Of PostgreSQL's advisory locks: numbers are given in the order in which they are committed, or a
#: follower who has seen 8 would never be shown a 7 that was committed later.
_LOCK = 0x6B656467
_MOST_TEXT = 2000
#: Two queries in one: asked for both ends at once, SQLite reads the whole table instead of its ends
#: (https://www.sqlite.org/optoverview.html#the_min_max_optimization).
_BOUNDS = select(
    select(func.min(EventRow.id)).scalar_subquery(), select(func.max(EventRow.id)).scalar_subquery()
)


@dataclass(frozen=True)
class Event:
    """Something that happened.

    Attributes:
        kind: One of :mod:`kedge_server.events.kinds`.
        subject: What it is about.
        data: What is told of it.
    """

    kind: str
    subject: str
    data: dict[str, Any]


def emit(session: Session, kind: str, subject: str, data: dict[str, Any], now: float) -> None:
    """Writes an event within the transaction of what it tells of, and queues it for webhooks."""
    emit_all(session, [Event(kind, subject, data)], now)


def emit_all(session: Session, events: Sequence[Event], now: float) -> None:
    """Writes events in their order; a batch of reports has a hundred of them.

    Args:
        session: Of the transaction of what they tell of.
        events: Them.
        now: Unix seconds.
    """
    if not events:
        return
    session.flush()
    if session.get_bind().dialect.name == "postgresql":
        session.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _LOCK})
    values = [{"at": now, "kind": each.kind, "subject": each.subject, "data": _stored(each.data)}
              for each in events]  # fmt: skip
    adding = insert(EventRow).returning(EventRow, sort_by_parameter_order=True)
    rows = session.scalars(adding, values)
    outbox.queue(session, [_info(row) for row in rows], now)


def _stored(data: dict[str, Any]) -> str:
    short = {key: value[:_MOST_TEXT] if isinstance(value, str) else value
             for key, value in data.items()}  # fmt: skip
    return wire.encode(short).decode()


def after(
    session: Session, last: int, most: int, kinds: tuple[str, ...] = ("*",), subject: str = ""
) -> tuple[list[EventInfo], int]:
    """Returns events that came after one, oldest first, and the id up to which was looked.

    Args:
        session: Of the request.
        last: Id of the one.
        most: So many rows are looked at.
        kinds: Those that are wanted.
        subject: Only what is about this, if given.
    """
    query = select(EventRow).where(col(EventRow.id) > last).order_by(col(EventRow.id)).limit(most)
    rows = session.exec(query).all()
    found = [_info(row) for row in rows if matches(row.kind, kinds)]
    seen = rows[-1].id if rows else last
    return [each for each in found if not subject or each.subject == subject], seen or last


def bounds(session: Session) -> tuple[int, int]:
    """Returns the ids of the oldest and the newest event that is kept; (0, 0) without any."""
    oldest, newest = session.execute(_BOUNDS).one()
    return oldest or 0, newest or 0


def trim(session: Session, most: int) -> None:
    """Drops the oldest events beyond so many."""
    _, newest = bounds(session)
    session.execute(delete(EventRow).where(col(EventRow.id) <= newest - most))


def _info(row: EventRow) -> EventInfo:
    data = wire.decode(row.data.encode(), dict, "stored event")
    return EventInfo(id=row.id or 0, at=row.at, kind=row.kind, subject=row.subject, data=data)
