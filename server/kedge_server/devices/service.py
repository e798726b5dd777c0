"""Enrolment, reports and what operators see of devices."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Mapping
from typing import Any

from sqlalchemy import Table, bindparam, func, update
from sqlmodel import Session, col, select

from kedge_server.audit.service import record
from kedge_server.devices.tables import DeviceRow, EnrolmentTokenRow
from kedge_server.errors import ConflictError, NotFoundError, RequestError, UnauthorizedError
from kedge_server.replicas import changes
from kedge_server.rollouts import reports
from kedge_shared import signing, wire
from kedge_shared.api import DeviceInfo, EnrolmentToken, TokenRequest
from kedge_shared.errors import TrustError
from kedge_shared.phases import Phase
from kedge_shared.protocol import (
    ENROLMENT_TYPE,
    REPORT_LIMIT_BYTES,
    DeviceFacts,
    Enrolled,
    Enrolment,
)

_TABLE: Table = DeviceRow.__table__  # type: ignore[attr-defined]


def make_tokens(session: Session, request: TokenRequest, who: str) -> list[EnrolmentToken]:
    """Makes one-time enrolment tokens; only their hashes are stored."""
    from kedge_server.auth import token_hash

    expires = time.time() + request.ttl_seconds
    made = [EnrolmentToken(token=secrets.token_urlsafe(24), expires=expires)
            for _ in range(request.count)]  # fmt: skip
    for each in made:
        session.add(EnrolmentTokenRow(token_hash=token_hash(each.token), expires=expires))
    record(session, who, "enrolment-tokens", str(request.count))
    return made


def enrol(session: Session, token: str, envelope: dict[str, Any]) -> tuple[Enrolled, str]:
    """Enrols a device that proves it holds the key it brings.

    Returns:
        The answer, and the hash of the device's token.

    Raises:
        UnauthorizedError: The token is unknown, used or expired.
        RequestError: The request is malformed or not signed by its own key.
        ConflictError: The name belongs to a device with another key.
    """
    from kedge_server.auth import token_hash

    row = session.get(EnrolmentTokenRow, token_hash(token))
    if row is None or row.used_by is not None or row.expires < time.time():
        raise UnauthorizedError(
            "this enrolment token is unknown, used or expired", "make one: kedge device token"
        )
    try:
        claimed = signing.peek(envelope, Enrolment)
        key = signing.key_from_dict(claimed.public_key)
        enrolment = signing.unseal(
            envelope, ENROLMENT_TYPE, Enrolment, key, limit_bytes=REPORT_LIMIT_BYTES
        )
    except TrustError as error:
        raise RequestError(f"enrolment is not to be trusted: {error}") from None
    device = session.get(DeviceRow, enrolment.name)
    if device is not None and device.key_id != key.keyid:
        raise ConflictError(
            f"{enrolment.name} is enrolled with another key", "give this board another name"
        )
    secret = secrets.token_urlsafe(32)
    if device is None:
        device = DeviceRow(id=enrolment.name, device_class="", key_id=key.keyid, public_key="",
                           token_hash="", facts="", enrolled=time.time())  # fmt: skip
    device.device_class, device.serves = enrolment.device_class, enrolment.serves
    device.public_key = json.dumps(enrolment.public_key)
    device.token_hash = token_hash(secret)
    device.tags = json.dumps(enrolment.tags)
    device.facts = wire.encode(enrolment.facts).decode()
    row.used_by = device.id
    session.add(device)
    session.add(row)
    session.flush()
    changes.note(session, "device", device.id)
    record(session, device.id, "enrol", device.id, f"{device.device_class}, key {key.keyid[:12]}")
    if device.serves:
        reports.late_device(session, device, time.time())
    return Enrolled(device=device.id, token=secret), device.token_hash


def find(session: Session, device: str) -> DeviceRow:
    """Returns a device.

    Raises:
        NotFoundError: There is none of that name.
    """
    row = session.get(DeviceRow, device)
    if row is None:
        raise NotFoundError(f"there is no device {device}", "`kedge device list`")
    return row


def search(session: Session, device_class: str, tag: str) -> list[DeviceInfo]:
    """Returns devices by class and tag (``key:value``); empty is any."""
    query = select(DeviceRow).order_by(col(DeviceRow.id))
    if device_class:
        query = query.where(DeviceRow.device_class == device_class)
    key, _, value = tag.partition(":")
    return [
        info(each) for each in session.exec(query)
        if not tag or json.loads(each.tags).get(key) == value
    ]  # fmt: skip


def info(row: DeviceRow) -> DeviceInfo:
    """Returns what operators see of a device."""
    return DeviceInfo(
        id=row.id, device_class=row.device_class, tags=json.loads(row.tags),
        facts=wire.decode(row.facts.encode(), DeviceFacts, "stored facts"), release=row.release,
        engine=row.engine, phase=Phase(row.phase), last_seen=row.last_seen,
        latency_p95_ms=row.latency_p95_ms, frames=row.frames, serves=row.serves,
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
