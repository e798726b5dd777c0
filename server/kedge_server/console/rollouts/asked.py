"""A new rollout as a form has it, and as the specification that it means. Pure."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from kedge_server.errors import MalformedError
from kedge_shared import wire
from kedge_shared.errors import InputError
from kedge_shared.rollouts import RolloutSpec

_PERCENT = re.compile(r"(\d+(?:\.\d+)?)\s*%")
_COUNT = re.compile(r"\d{1,9}")
_STAGES_MOST = 20


@dataclass(frozen=True)
class Row:
    """A stage in the form.

    Attributes:
        size: ``5 %``, a number of boards of each class, or a selector.
        soak_minutes: Text of a number.
        approval: ``yes`` or empty.
    """

    size: str
    soak_minutes: str = "10"
    approval: str = ""


USUAL = (Row("5 %", approval="yes"), Row("25 %"), Row("100 %"))
#: Fields that hold numbers: name in the form → path in the specification.
_NUMBERS = {
    "priority": "priority", "blast_radius": "blast_radius", "deadline_hours": "deadline_hours",
    "download_slots": "download_slots", "downloads_per_minute": "downloads_per_minute",
}  # fmt: skip


def rows_of(fields: Mapping[str, Sequence[str]]) -> tuple[Row, ...]:
    """Returns the stages of a form, the empty ones left out."""
    columns = (fields.get(each, ()) for each in ("size", "soak", "approval"))
    found = (Row(size.strip(), soak.strip(), asks)
             for size, soak, asks in zip(*columns, strict=False))  # fmt: skip
    return tuple(each for each in found if each.size)[:_STAGES_MOST]


def spec_of(fields: Mapping[str, Sequence[str]]) -> RolloutSpec:
    """Returns what a form asks for; a file that was pasted into it counts instead.

    Raises:
        MalformedError: A field is missing or not what it should be.
    """
    text = _one(fields, "text")
    try:
        if text:
            return wire.decode_yaml(text.encode(), RolloutSpec, "the file")
        return wire.decode(wire.encode(_raw(fields)), RolloutSpec, "the form")
    except InputError as error:
        raise MalformedError(error.what, error.mend) from None


def _raw(fields: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    model, _, release = _one(fields, "release").partition(" ")
    if not release:
        raise MalformedError("no release is chosen", "publish one with `kedge publish`")
    found: dict[str, Any] = {
        "model": model, "release": release, "selector": _one(fields, "selector"),
        "recall": bool(_one(fields, "recall")), "two_person": bool(_one(fields, "two_person")),
        "order": [each.strip() for each in _one(fields, "order").splitlines() if each.strip()],
        "stages": [_stage(each, fields) for each in rows_of(fields)],
    }  # fmt: skip
    for name, path in _NUMBERS.items():
        if _one(fields, name):
            found[path] = _number(fields, name)
    if _one(fields, "window_begins") or _one(fields, "window_ends"):
        found["window"] = {"begins": _one(fields, "window_begins"),
                           "ends": _one(fields, "window_ends")}  # fmt: skip
    if _one(fields, "retry"):
        found["retry"] = {}
    return found


def _stage(row: Row, fields: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    percent = _PERCENT.fullmatch(row.size)
    found: dict[str, Any] = {"approval": bool(row.approval), "gate": _gate(row, fields)}
    if percent:
        found["percent"] = float(percent[1])
    elif _COUNT.fullmatch(row.size):
        found["count"] = int(row.size)
    else:
        found["selector"] = row.size
    return found


def _gate(row: Row, fields: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    found: dict[str, Any] = {
        "soak_seconds": 60 * _value(row.soak_minutes or "0", "soak"),
        "silence_seconds": 60 * _value(_one(fields, "silence") or "30", "silence"),
        "limits": {},
    }
    if _one(fields, "limit_failed"):
        found["limits"]["failed"] = _number(fields, "limit_failed")
    if _one(fields, "gate") == "thresholds":
        found["max_failure_share"] = (
            _value(_one(fields, "failure_percent") or "0", "failures") / 100
        )
        return found
    test = {"latency_ratio": None, "on_exhausted": _one(fields, "on_exhausted") or "ask"}
    if _one(fields, "slower_percent"):
        test["latency_ratio"] = 1 + _value(_one(fields, "slower_percent"), "slower") / 100  # type: ignore[assignment]
    found["sequential"] = test
    return found


def _number(fields: Mapping[str, Sequence[str]], name: str) -> float:
    value = _value(_one(fields, name), name)
    return int(value) if value == int(value) else value


def _value(text: str, name: str) -> float:
    try:
        found = float(text)
    except ValueError:
        found = math.nan
    if not math.isfinite(found):
        raise MalformedError(f"{name}: {text[:40]!r} is no number", "write digits")
    return found


def _one(fields: Mapping[str, Sequence[str]], name: str) -> str:
    found = fields.get(name, ())
    return found[0].strip() if found else ""
