"""The scheduler's lease: one server at a time does what happens by itself.

A row with holder, token and expiry by the database's clock, so that servers whose clocks differ
agree on who leads. The token fences: each transaction of the holder's locks the row and looks that
its token still stands, so that a holder that slept through its expiry changes nothing any more,
and nobody takes the lease over in the midst of it.
"""

from __future__ import annotations

import secrets
import socket
from typing import Any

from sqlalchemy import CursorResult, insert, select, update
from sqlalchemy.exc import IntegrityError
from sqlmodel import Session, col

from kedge_server.database import clock
from kedge_server.replicas.tables import LeaseRow

_NAME = "scheduler"


class Lease:
    """This server's hold on the lease, or none.

    Args:
        seconds: How long it lasts without being renewed.

    Attributes:
        holder: What this server is called there.
        fence: Number of the hold (fencing token); ``None`` while another server leads.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self.holder = f"{socket.gethostname()}-{secrets.token_hex(4)}"
        self.fence: int | None = None

    def take(self, session: Session) -> bool:
        """Takes the lease, or renews it.

        Returns:
            Whether this server has just become the holder.
        """
        _make(session)
        until = clock(session) + self._seconds
        mine = (col(LeaseRow.name) == _NAME, col(LeaseRow.holder) == self.holder)
        if self.fence is not None and _hits(
            session,
            update(LeaseRow).where(*mine, col(LeaseRow.fence) == self.fence).values(expires=until),
        ):
            return False
        self.fence = None
        over = col(LeaseRow.expires) < clock(session)
        taken = update(LeaseRow).where(col(LeaseRow.name) == _NAME, over)
        values = {"holder": self.holder, "fence": LeaseRow.fence + 1, "expires": until}
        if not _hits(session, taken.values(**values)):
            return False
        self.fence = session.execute(select(col(LeaseRow.fence)).where(*mine)).scalar_one()
        return True

    def holds(self, session: Session) -> bool:
        """Says whether this server leads, and keeps it so until the transaction ends."""
        if self.fence is None:
            return False
        row = session.execute(
            select(col(LeaseRow.fence), col(LeaseRow.holder))
            .where(col(LeaseRow.name) == _NAME)
            .with_for_update()
        ).first()
        if row is None or tuple(row) != (self.fence, self.holder):
            self.fence = None
        return self.fence is not None

    def lose(self) -> None:
        """Stops leading: whether the lease is still held is not known."""
        self.fence = None

    def give_up(self, session: Session) -> None:
        """Lets another server lead at once, at an orderly end."""
        if self.holds(session):
            row = update(LeaseRow).where(col(LeaseRow.name) == _NAME)
            session.execute(row.values(holder="", expires=0.0))
        self.fence = None


def _make(session: Session) -> None:
    """Makes the row at the first start ever; several servers may try at once."""
    if session.execute(select(col(LeaseRow.name)).where(col(LeaseRow.name) == _NAME)).first():
        return
    try:
        with session.begin_nested():
            session.execute(insert(LeaseRow).values(name=_NAME, holder="", fence=0, expires=0.0))
    except IntegrityError:
        pass


def _hits(session: Session, statement: Any) -> bool:
    done: CursorResult[Any] = session.execute(  # type: ignore[assignment]
        statement, execution_options={"synchronize_session": False}
    )
    return done.rowcount == 1
