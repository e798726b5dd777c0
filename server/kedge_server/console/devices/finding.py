"""Boards that match a selector, page by page: the database sorts them out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from sqlalchemy import ColumnElement, Row, func, select
from sqlmodel import Session, col

from kedge_server.accounts.principal import Reach
from kedge_server.devices import sieve
from kedge_server.devices.facts import COLUMNS
from kedge_server.devices.selectors import Selector
from kedge_server.devices.tables import DeviceRow
from kedge_server.fleet import counting

State = Literal["", "silent", "work", "behind", "suspected", "revoked", "measuring"]
SHOWN = 50
_SHOWN_COLUMNS = (*COLUMNS, DeviceRow.phase, DeviceRow.last_seen, DeviceRow.latency_p95_ms,
                  DeviceRow.revoked, DeviceRow.suspected_clone, DeviceRow.serves)  # fmt: skip


@dataclass(frozen=True)
class Wanted:
    """Which boards.

    Attributes:
        selector: Or ``None`` for any.
        state: Of :data:`State`.
        within: Only those.
        silent_since: Unix seconds; who was not heard of since is silent.
    """

    selector: Selector | None
    state: State
    within: Reach
    silent_since: float


@dataclass(frozen=True)
class Found:
    """A page.

    Attributes:
        rows: Boards.
        following: Where the next page begins; empty: nowhere.
    """

    rows: Sequence[Row[Any]] = ()
    following: str = ""


def page(session: Session, wanted: Wanted, after: str) -> Found:
    """Returns boards in the order of their names."""
    query = (
        select(*_SHOWN_COLUMNS)  # type: ignore[call-overload]
        .where(col(DeviceRow.id) > after, *_conditions(session, wanted))
        .order_by(col(DeviceRow.id))
        .limit(SHOWN + 1)
    )
    rows = session.execute(query).all()
    return Found(rows[:SHOWN], rows[SHOWN - 1].id if len(rows) > SHOWN else "")


def count(session: Session, wanted: Wanted) -> int:
    """Returns how many boards there are."""
    query = select(func.count()).select_from(DeviceRow).where(*_conditions(session, wanted))
    return int(session.execute(query).scalar_one())


def names(session: Session, wanted: Wanted) -> list[str]:
    """Returns the names of all of them."""
    query = select(col(DeviceRow.id)).where(*_conditions(session, wanted))
    return list(session.execute(query).scalars())


def _conditions(session: Session, wanted: Wanted) -> list[ColumnElement[bool]]:
    """Returns what every wanted board fulfils, and no other."""
    found = [*_of_state(session, wanted), sieve.within(session, wanted.within)]
    if wanted.selector is not None:
        found.append(sieve.condition(session, wanted.selector))
    return found


def _of_state(session: Session, wanted: Wanted) -> list[ColumnElement[bool]]:
    revoked = col(DeviceRow.revoked)
    if wanted.state == "revoked":
        return [revoked.is_not(None)]
    found: list[ColumnElement[bool]] = [revoked.is_(None)]
    if wanted.state == "silent":
        heard = func.coalesce(col(DeviceRow.last_seen), col(DeviceRow.enrolled))
        found += [heard < wanted.silent_since, col(DeviceRow.serves).is_(True)]
    if wanted.state == "work":
        found.append(counting.is_at_work())
    if wanted.state == "behind":
        found.append(counting.is_behind(session))
    if wanted.state == "suspected":
        found.append(col(DeviceRow.suspected_clone).is_not(None))
    if wanted.state == "measuring":
        found.append(col(DeviceRow.serves).is_(False))
    return found
