"""Enrolment, reports and what operators see of devices."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Sequence
from typing import Any

from sqlmodel import Session, col, select

from kedge_server.attestations import service as attestations
from kedge_server.audit.service import record
from kedge_server.devices.tables import DeviceRow, EnrolmentTokenRow, ReportRow
from kedge_server.errors import ConflictError, NotFoundError, RequestError, UnauthorizedError
from kedge_server.rollouts import reports
from kedge_shared import signing, wire
from kedge_shared.api import DeviceInfo, EnrolmentToken, TokenRequest
from kedge_shared.errors import InputError, TrustError
from kedge_shared.phases import Phase
from kedge_shared.protocol import (
    ENROLMENT_TYPE,
    REPORT_LIMIT_BYTES,
    REPORT_TYPE,
    DeviceFacts,
    Enrolled,
    Enrolment,
    Report,
)


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
    record(session, device.id, "enrol", device.id, f"{device.device_class}, key {key.keyid[:12]}")
    if device.serves:
        reports.late_device(session, device, time.time())
    return Enrolled(device=device.id, token=secret), device.token_hash


def take_reports(
    session: Session, device_id: str, envelopes: Sequence[dict[str, Any]]
) -> tuple[int, int]:
    """Takes signed reports, each once.

    Returns:
        How many were new, how many were known.

    Raises:
        RequestError: One is malformed, not this device's or not signed by its key; none is taken.
    """
    device = find(session, device_id)
    key = signing.key_from_dict(json.loads(device.public_key))
    reports = [_open(at, each, device, key) for at, each in enumerate(envelopes)]
    fresh = 0
    for report in reports:
        if session.get(ReportRow, (device.id, report.boot_id, report.seq)) is None:
            _apply(session, device, report)
            fresh += 1
    return fresh, len(reports) - fresh


def _open(at: int, envelope: dict[str, Any], device: DeviceRow, key: Any) -> Report:
    try:
        report = signing.unseal(envelope, REPORT_TYPE, Report, key, limit_bytes=REPORT_LIMIT_BYTES)
    except (TrustError, InputError) as error:
        raise RequestError(f"report {at} is not to be trusted: {error}") from None
    if report.device != device.id:
        raise RequestError(f"report {at} is of {report.device}, not of {device.id}")
    return report


def _apply(session: Session, device: DeviceRow, report: Report) -> None:
    now = time.time()
    session.add(
        ReportRow(
            device=device.id, boot_id=report.boot_id, seq=report.seq, received=now,
            deployment=report.deployment, phase=report.phase.value,
            body=wire.encode(report).decode(),
        )
    )  # fmt: skip
    device.last_seen = now
    device.engine, device.release = report.engine, report.release
    device.phase = report.phase.value
    if report.window is not None:
        device.frames += report.window.frames
        device.latency_p95_ms = report.window.latency_ms.quantile(0.95)
    session.add(device)
    session.flush()
    attestations.take(session, device, report, now)
    if report.deployment:
        reports.reported(session, report, device.id, now)
    if report.window is not None:
        reports.measured(session, report, report.window)


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


def flush_seen(session: Session, seen: dict[str, float]) -> None:
    """Writes when devices were last seen."""
    for device, at in seen.items():
        row = session.get(DeviceRow, device)
        if row is not None and (row.last_seen or 0) < at:
            row.last_seen = at
            session.add(row)
