"""Reports of devices and what operators see of them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from itertools import islice

from sqlalchemy import Table, bindparam, func, update
from sqlmodel import Session, col, select

from kedge_server.accounts.principal import WHOLE_FLEET, Reach
from kedge_server.devices.facts import facts_of_device
from kedge_server.devices.tables import DeviceRow
from kedge_server.errors import NotFoundError
from kedge_shared import wire
from kedge_shared.api import DeviceInfo
from kedge_shared.phases import Phase
from kedge_shared.protocol import DeviceFacts

_PAGE = 1000
_TABLE: Table = DeviceRow.__table__  # type: ignore[attr-defined]


def find(session: Session, device: str) -> DeviceRow:
    """Returns a device.

    Raises:
        NotFoundError: There is none of that name.
    """
    row = session.get(DeviceRow, device)
    if row is None:
        raise NotFoundError(f"there is no device {device}", "`kedge device list`")
    return row


def search(
    session: Session,
    device_class: str,
    tag: str,
    within: Reach = WHOLE_FLEET,
    after: str = "",
    most: int | None = None,
) -> list[DeviceInfo]:
    """Returns devices within a scope, by name.

    Args:
        session: Of the request.
        device_class: Only of this class; empty is any.
        tag: Only with this tag, ``key:value``; empty is any.
        within: Only what this includes.
        after: Only names behind this one.
        most: So many; ``None`` is all.
    """
    query = select(DeviceRow).order_by(col(DeviceRow.id)).where(col(DeviceRow.id) > after)
    if device_class:
        query = query.where(DeviceRow.device_class == device_class)
    key, _, value = tag.partition(":")
    rows = session.exec(query.execution_options(yield_per=_PAGE))
    found = (
        info(each) for each in rows
        if (not tag or json.loads(each.tags).get(key) == value)
        and (within.whole or within.includes(facts_of_device(each)))
    )  # fmt: skip
    return list(islice(found, most))


def info(row: DeviceRow) -> DeviceInfo:
    """Returns what operators see of a device."""
    return DeviceInfo(
        id=row.id, device_class=row.device_class, tags=json.loads(row.tags),
        facts=wire.decode(row.facts.encode(), DeviceFacts, "stored facts"), release=row.release,
        engine=row.engine, phase=Phase(row.phase), last_seen=row.last_seen,
        latency_p95_ms=row.latency_p95_ms, frames=row.frames, serves=row.serves,
        fingerprint=row.key_id, revoked=row.revoked, suspected_clone=row.suspected_clone,
        suspicion=row.suspicion,
    )  # fmt: skip


_SEEN = (
    update(_TABLE)
    .where(_TABLE.c.id == bindparam("key"))
    .where(func.coalesce(_TABLE.c.last_seen, 0.0) < bindparam("at"))
    .values(last_seen=bindparam("at"))
)


def write_seen(session: Session, seen: Mapping[str, float]) -> None:
    """Writes when devices were last seen."""
    # In one order everywhere, or two servers would wait for each other.
    rows = [{"key": device, "at": seen[device]} for device in sorted(seen)]
    session.connection().execute(_SEEN, rows)
