"""Help with the language of selectors, as somebody types it."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from sqlalchemy import ColumnElement, select
from sqlmodel import Session, col

from kedge_server.accounts.principal import Reach
from kedge_server.devices import sieve
from kedge_server.devices.facts import COLUMNS, AnyDevice, facts_of_device
from kedge_server.devices.selectors import FAMILIES, FIELDS, SelectorError, parse
from kedge_server.devices.tables import DeviceRow

#: What each field is, and how it is asked about.
MEANINGS: dict[str, str] = {
    "name": "name of the board", "class": "device class", "arch": "processor's architecture",
    "memory_mb": "memory, MiB", "sm": "CUDA compute capability", "agent": "agent's version",
    "cpu_flags": "what the processor can", "release": "release that serves",
    "tag.": "tag of the board, tag.KEY", "runtime.": "runtime's version, runtime.NAME",
}  # fmt: skip
#: The comparison or field that is being typed, at the end of the text.
_VALUE = re.compile(
    r"(?P<field>[A-Za-z_][\w.-]*)\s*(?:==|!=|=in=\(|=out=\()\s*(?P<begun>[^\s;,()]*)$"
)
_FIELD = re.compile(r"(?:^|[;,(]|\s(?:and|or)\s)\s*(?P<begun>[\w.-]*)$")
#: Boards that are looked at for what their tags and facts hold.
_LOOKED = 500
_SHOWN = 12


@dataclass(frozen=True)
class Suggestion:
    """What may come next.

    Attributes:
        text: The whole selector with it.
        shown: What is added.
        meaning: What it is.
    """

    text: str
    shown: str
    meaning: str


@dataclass(frozen=True)
class Help:
    """What somebody is told while they type.

    Attributes:
        fault: What is wrong so far; empty if it can be read.
        suggestions: What may come next.
    """

    fault: str
    suggestions: tuple[Suggestion, ...]


def known_fields() -> tuple[tuple[str, str], ...]:
    """Returns the fields with what they mean."""
    return tuple(MEANINGS.items())


def fault_of(text: str) -> str:
    """Returns what is wrong with a selector; an empty one is any board. Pure."""
    if not text.strip():
        return ""
    try:
        parse(text)
    except SelectorError as error:
        return error.what
    return ""


def help_of(session: Session, text: str, within: Reach) -> Help:
    """Returns help with a selector."""
    return Help(fault_of(text), tuple(_suggestions(session, text, within))[:_SHOWN])


def _suggestions(session: Session, text: str, within: Reach) -> Iterable[Suggestion]:
    value = _VALUE.search(text)
    if value is not None:
        begun, field = value["begun"], value["field"]
        for each in _values(session, field, begun, within):
            yield Suggestion(text[: len(text) - len(begun)] + each, each, MEANINGS.get(field, ""))
        return
    field_ = _FIELD.search(text)
    if field_ is not None:
        begun = field_["begun"]
        for name in _fields(session, begun, within):
            meaning = next(said for each, said in MEANINGS.items() if name.startswith(each))
            yield Suggestion(text[: len(text) - len(begun)] + name, name, meaning)


def _fields(session: Session, begun: str, within: Reach) -> list[str]:
    names = [each for each in FIELDS if each.startswith(begun)]
    keys = {key for row in _some(session, within) for key in facts_of_device(row)}
    names += sorted(each for each in keys if each.startswith(FAMILIES) and each.startswith(begun))
    return [each for each in names if each != begun]


def _values(session: Session, field: str, begun: str, within: Reach) -> list[str]:
    """Returns values that boards have; of a long list those that begin as what was typed."""
    where = col(DeviceRow.id).startswith(begun, autoescape=True) if field == "name" else None
    found = set()
    for row in _some(session, within, where):
        held = facts_of_device(row).get(field, ())
        for each in held if isinstance(held, tuple) else (held,):
            found.add(f"{each:g}" if isinstance(each, float) else str(each))
    return sorted(each for each in found if each and each.startswith(begun) and each != begun)


def _some(
    session: Session, within: Reach, where: ColumnElement[bool] | None = None
) -> list[AnyDevice]:
    query = select(*COLUMNS).where(sieve.within(session, within)).limit(_LOOKED)  # type: ignore[call-overload]
    if where is not None:
        query = query.where(where)
    return list(session.execute(query))
