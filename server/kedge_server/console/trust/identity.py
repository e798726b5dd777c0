"""The boards' own keys, counted."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlmodel import Session, col, func, select

from kedge_server.devices import pending
from kedge_server.devices.tables import AnnouncedKeyRow, DeadKeyRow, DeviceRow

SHOWN = 12


@dataclass(frozen=True)
class Identities:
    """How many boards stand how.

    Attributes:
        enrolled: Let in, and not revoked.
        revoked: Refused for ever.
        suspected: Two boards may hold one key.
        waiting: For a person.
        announced: Keys whose board comes in without being asked about, and has not come yet.
        dead: Keys that are never taken again.
        suspects: Some that are suspected: board, since when, why.
    """

    enrolled: int
    revoked: int
    suspected: int
    waiting: int
    announced: int
    dead: int
    suspects: tuple[tuple[str, float, str], ...]


def count(session: Session) -> Identities:
    """Counts the whole fleet."""
    revoked = col(DeviceRow.revoked).is_not(None)
    suspected = col(DeviceRow.suspected_clone).is_not(None)
    some = (
        select(DeviceRow.id, DeviceRow.suspected_clone, DeviceRow.suspicion)
        .where(suspected)
        .order_by(col(DeviceRow.id))
        .limit(SHOWN)
    )
    return Identities(
        enrolled=_count(session, ~revoked), revoked=_count(session, revoked),
        suspected=_count(session, suspected), waiting=pending.count(session),
        announced=_count(session, col(AnnouncedKeyRow.device) == ""),
        dead=_count(session, col(DeadKeyRow.fingerprint) != ""),
        suspects=tuple((row[0], row[1] or 0.0, row[2]) for row in session.exec(some)),
    )  # fmt: skip


def _count(session: Session, condition: Any) -> int:
    return int(session.exec(select(func.count()).where(condition)).one())
