"""Reports of devices and what operators see of them."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from typing import Any

from sqlmodel import Session, col, select

from kedge_server.accounts.principal import WHOLE_FLEET, Reach
from kedge_server.devices import clones
from kedge_server.devices.tables import DeviceRow, ReportRow
from kedge_server.errors import NotFoundError, RequestError
from kedge_server.rollouts import reports
from kedge_server.rollouts.membership import facts_of_device
from kedge_shared import signing, wire
from kedge_shared.api import DeviceInfo
from kedge_shared.errors import InputError, TrustError
from kedge_shared.phases import Phase
from kedge_shared.protocol import (
    REPORT_LIMIT_BYTES,
    REPORT_TYPE,
    DeviceFacts,
    Report,
)


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
        taken = session.get(ReportRow, (device.id, report.boot_id, report.seq))
        if taken is None:
            _apply(session, device, report)
            fresh += 1
        else:
            clones.told_twice(session, device, taken.body, report)
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


def search(
    session: Session, device_class: str, tag: str, within: Reach = WHOLE_FLEET
) -> list[DeviceInfo]:
    """Returns devices within a scope by class and tag (``key:value``); empty is any."""
    query = select(DeviceRow).order_by(col(DeviceRow.id))
    if device_class:
        query = query.where(DeviceRow.device_class == device_class)
    key, _, value = tag.partition(":")
    return [
        info(each) for each in session.exec(query)
        if (not tag or json.loads(each.tags).get(key) == value)
        and (within.whole or within.includes(facts_of_device(each)))
    ]  # fmt: skip


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


def flush_seen(session: Session, seen: dict[str, float]) -> None:
    """Writes when devices were last seen."""
    for device, at in seen.items():
        row = session.get(DeviceRow, device)
        if row is not None and (row.last_seen or 0) < at:
            row.last_seen = at
            session.add(row)
