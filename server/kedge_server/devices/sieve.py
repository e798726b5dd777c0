"""Selectors as conditions of the database: who matches is sorted out where the boards are.

Names, classes, releases and tags that are asked for as they are, the database compares. Of all
else (other tags, versions, what boards say of themselves) the fleet has few values: they are looked
up, judged by :func:`kedge_server.devices.selectors.matches`, and those that match become a list to
look a board's value up in. A value that is new since then is in no list, so who is confined to a
part of the fleet never sees too much.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

from sqlalchemy import (
    JSON,
    ColumnElement,
    Select,
    SQLColumnExpression,
    Text,
    and_,
    cast,
    false,
    func,
    literal,
    or_,
    select,
    true,
)
from sqlmodel import Session, col

from kedge_server.accounts.principal import Reach
from kedge_server.devices.facts import facts_of_kind
from kedge_server.devices.selectors import Both, Constraint, Facts, Selector, matches
from kedge_server.devices.tables import DeviceRow

_COLUMNS: dict[str, SQLColumnExpression[str]] = {
    "name": col(DeviceRow.id), "class": col(DeviceRow.device_class),
    "release": col(DeviceRow.release),
}  # fmt: skip
_TAG = "tag."


def within(session: Session, reach: Reach) -> ColumnElement[bool]:
    """Returns the condition of a board being within."""
    return and_(true(), *(condition(session, each) for each in reach.selectors))


def condition(session: Session, selector: Selector) -> ColumnElement[bool]:
    """Returns the condition of a board matching."""
    if isinstance(selector, Both):
        parts = [condition(session, each) for each in selector.parts]
        return and_(*parts) if selector.word == "and" else or_(*parts)
    value = _value(session, selector.field)
    if _is_plain(selector):
        same = or_(*(_is(session, value, each) for each in selector.values))
        return same if selector.field in _COLUMNS else func.coalesce(same, false())
    known = session.execute(select(value).distinct()).scalars()
    taken = [each for each in known if matches(selector, _facts(selector.field, each))]
    found = value.in_(_listed(session, [each for each in taken if each is not None]))
    return or_(value.is_(None), found) if None in taken else func.coalesce(found, false())


def _is_plain(asked: Constraint) -> bool:
    """Says that texts are looked for as they are: the database can do so without a list."""
    is_text = asked.field in _COLUMNS or asked.field.startswith(_TAG)
    return is_text and asked.operator in {"==", "=in="}


def _is(session: Session, value: SQLColumnExpression[Any], wanted: str) -> ColumnElement[bool]:
    """Returns the condition of a text being another, in which ``*`` stands for anything."""
    if "*" not in wanted:
        return value == wanted
    if _grown(session):
        escaped = re.sub(r"([\\%_])", r"\\\1", wanted)
        return value.like(escaped.replace("*", "%"), escape="\\")
    # Unlike LIKE of SQLite it tells A from a.
    return value.op("GLOB", is_comparison=True)(re.sub(r"([\[?])", r"[\1]", wanted))


def _value(session: Session, field: str) -> SQLColumnExpression[Any]:
    """Returns where a field stands, NULL where a board has none; all facts stand in one text."""
    if not field.startswith(_TAG):
        return _COLUMNS.get(field, col(DeviceRow.facts))
    key = field.removeprefix(_TAG)
    if _grown(session):
        told: ColumnElement[Any] = cast(col(DeviceRow.tags), JSON)[key].as_string()
        return told
    # As json.dumps wrote it: not every SQLite takes another spelling of a key for the same.
    found: ColumnElement[Any] = func.json_extract(col(DeviceRow.tags), f"$.{json.dumps(key)}")
    return found


def _facts(field: str, value: str | None) -> Facts:
    """Returns what a selector asks about, of boards that have that value."""
    if value is None:
        return {}
    if field in _COLUMNS or field.startswith(_TAG):
        return {field: value}
    return facts_of_kind(value)


def _listed(session: Session, values: Sequence[str]) -> Select[Any]:
    """Returns texts as the rows of a query: one parameter, however many there are."""
    text = literal(json.dumps(values), Text())
    each: Any = (
        func.json_array_elements_text(cast(text, JSON)) if _grown(session) else func.json_each(text)
    )
    rows = each.table_valued("value")
    return select((rows.render_derived() if _grown(session) else rows).c.value)


def _grown(session: Session) -> bool:
    return session.get_bind().dialect.name == "postgresql"
