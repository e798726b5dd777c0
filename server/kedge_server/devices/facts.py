"""What selectors ask about a device, from its stored row."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Protocol

from kedge_server.devices.selectors import Facts
from kedge_server.devices.tables import DeviceRow
from kedge_shared import wire
from kedge_shared.protocol import DeviceFacts

#: Columns instead of entities: the whole fleet may be read.
COLUMNS = (DeviceRow.id, DeviceRow.device_class, DeviceRow.facts, DeviceRow.tags,
           DeviceRow.release)  # fmt: skip


class AnyDevice(Protocol):
    """A device's row, or its columns that are asked for here."""

    id: Any
    device_class: Any
    facts: Any
    tags: Any
    release: Any


@lru_cache(maxsize=1024)
def facts_of(text: str) -> DeviceFacts:
    """Returns a board's facts; boards of a kind have the same text."""
    return wire.decode(text.encode(), DeviceFacts, "stored facts")


@lru_cache(maxsize=1024)
def tags_of(text: str) -> Mapping[str, str]:
    """Returns a device's tags."""
    found: dict[str, str] = json.loads(text)
    return found


@lru_cache(maxsize=1024)
def facts_of_kind(text: str) -> Facts:
    """Returns what boards with the same facts have in common."""
    facts = facts_of(text)
    found: dict[str, str | float | tuple[str, ...]] = {
        "arch": facts.arch, "memory_mb": float(facts.memory_mb), "agent": facts.agent,
        "cpu_flags": facts.cpu_flags,
    }  # fmt: skip
    if facts.sm is not None:
        found["sm"] = float(facts.sm)
    return found | {f"runtime.{name}": version for name, version in facts.runtimes.items()}


def facts_of_device(row: AnyDevice) -> Facts:
    """Returns what selectors ask about."""
    found = {
        **facts_of_kind(row.facts), "name": row.id, "class": row.device_class,
        "release": row.release,
    }  # fmt: skip
    found.update({f"tag.{key}": value for key, value in tags_of(row.tags).items()})
    return found
