"""Boards that match a selector, page by page: what the database can sort out it does."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from sqlalchemy import ColumnElement, Row, func, select
from sqlmodel import Session, col

from kedge_server.accounts.principal import Reach
from kedge_server.devices.facts import COLUMNS, facts_of_device
from kedge_server.devices.selectors import Both, Constraint, Selector, matches
from kedge_server.devices.tables import DeviceRow
from kedge_server.fleet import counting

State = Literal["", "silent", "work", "behind", "suspected", "revoked", "measuring"]
SHOWN = 50
#: Boards that are looked at for one page; then the next page goes on.
_LOOKED = 30_000
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

    @property
    def is_sorted_out(self) -> bool:
        """The database can tell alone."""
        return self.selector is None and self.within.whole


@dataclass(frozen=True)
class Found:
    """A page.

    Attributes:
        rows: Boards.
        following: Where the next page begins; empty: nowhere.
        whole: It ends because it is full, or there are no more; else after a long look.
    """

    rows: Sequence[Row[Any]]
    following: str
    whole: bool


def page(session: Session, wanted: Wanted, after: str) -> Found:
    """Returns boards in the order of their names."""
    query = (
        select(*_SHOWN_COLUMNS)  # type: ignore[call-overload]
        .where(col(DeviceRow.id) > after, *conditions(session, wanted))
        .order_by(col(DeviceRow.id))
        .limit(_LOOKED if not wanted.is_sorted_out else SHOWN + 1)
        .execution_options(yield_per=500)
    )
    takes, rows, looked, last = _matcher(wanted), list[Any](), 0, ""
    for row in session.execute(query):
        looked, last = looked + 1, row.id
        if not takes(row):
            continue
        rows.append(row)
        if len(rows) > SHOWN:
            return Found(rows[:SHOWN], rows[SHOWN - 1].id, True)
    return Found(rows, last if looked == _LOOKED else "", looked < _LOOKED)


def count(session: Session, wanted: Wanted) -> int:
    """Returns how many boards there are; looks at all that the database does not sort out."""
    if wanted.is_sorted_out:
        query = select(func.count()).select_from(DeviceRow).where(*conditions(session, wanted))
        return int(session.execute(query).scalar_one())
    return sum(1 for _ in names(session, wanted))


def names(session: Session, wanted: Wanted) -> Iterator[str]:
    """Yields the names of all of them."""
    query = select(*COLUMNS).where(*conditions(session, wanted)).execution_options(yield_per=2000)  # type: ignore[call-overload]
    takes = _matcher(wanted)
    return (row.id for row in session.execute(query) if takes(row))


def _matcher(wanted: Wanted) -> Callable[[Any], bool]:
    """Returns what tells whether a row is wanted; boards of a kind are judged once."""
    selector, within = wanted.selector, wanted.within
    if wanted.is_sorted_out:
        return lambda _: True
    named = "name" in fields_of(selector) or not within.whole
    known: dict[tuple[str, ...], bool] = {}

    def takes(row: Any) -> bool:
        kind = (row.device_class, row.facts, row.tags, row.release, row.id if named else "")
        found = known.get(kind)
        if found is None:
            facts = facts_of_device(row)
            found = (selector is None or matches(selector, facts)) and within.includes(facts)
            if not named:
                known[kind] = found
        return found

    return takes


def fields_of(selector: Selector | None) -> frozenset[str]:
    """Returns the fields that a selector asks about. Pure."""
    if selector is None:
        return frozenset()
    if isinstance(selector, Constraint):
        return frozenset({selector.field})
    return frozenset(each for part in selector.parts for each in fields_of(part))


def conditions(session: Session, wanted: Wanted) -> list[ColumnElement[bool]]:
    """Returns what every wanted board fulfils; more may fulfil it."""
    found = [*_of_state(session, wanted)]
    selector = wanted.selector
    parts = (
        selector.parts if isinstance(selector, Both) and selector.word == "and"
        else (selector,) if isinstance(selector, Constraint) else ()
    )  # fmt: skip
    for part in parts:
        if isinstance(part, Constraint):
            found += _of_constraint(part)
    return found


_COLUMN = {"name": DeviceRow.id, "class": DeviceRow.device_class, "release": DeviceRow.release}


def _of_constraint(part: Constraint) -> list[ColumnElement[bool]]:
    if part.operator != "==":
        return []
    value = part.values[0]
    if part.field in _COLUMN:
        column = col(_COLUMN[part.field])
        if "*" not in value:
            return [column == value]
        return [column.like(_escaped(value).replace("*", "%"), escape="\\")]
    if part.field.startswith("tag.") and "*" not in value:
        # However it is spaced; what has both and not together is sorted out later.
        key, wanted = (_escaped(json.dumps(each)) for each in (part.field[4:], value))
        return [col(DeviceRow.tags).like(f"%{key}%{wanted}%", escape="\\")]
    return []


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")


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
