"""Filters that people keep: each has their own, some dozens."""

from __future__ import annotations

from collections.abc import Sequence

from sqlmodel import Session, col, func, select

from kedge_server.console.devices.tables import SavedFilterRow
from kedge_server.errors import ConflictError

_MOST = 50


def of_user(session: Session, user: str) -> Sequence[SavedFilterRow]:
    """Returns a user's filters by name."""
    query = select(SavedFilterRow).where(SavedFilterRow.user == user)
    return list(session.exec(query.order_by(col(SavedFilterRow.name))))


def keep(session: Session, row: SavedFilterRow) -> None:
    """Keeps a filter; one of the same name is replaced.

    Raises:
        ConflictError: The user has too many.
    """
    mine = select(func.count()).where(SavedFilterRow.user == row.user)
    if session.exec(mine).one() >= _MOST:
        raise ConflictError(f"you keep {_MOST} filters already", "drop one first")
    session.merge(row)


def drop(session: Session, user: str, name: str) -> None:
    """Forgets a filter; one that is not there is forgotten already."""
    row = session.get(SavedFilterRow, (user, name))
    if row is not None:
        session.delete(row)
