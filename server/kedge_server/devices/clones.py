"""Two boards with one key: what shows it.

A board's programs start one after the other, and its reports are numbered once. So a start that
comes back after a later one of the same program, or a number that comes back with another report,
is a second board's (an image that was copied after its first start, a key that was stolen).
"""

from __future__ import annotations

import time
from dataclasses import replace

from sqlmodel import Session, col, delete, select

from kedge_server.audit.service import record
from kedge_server.devices.tables import DeviceRow, DeviceRunRow
from kedge_server.replicas import changes
from kedge_shared import wire
from kedge_shared.protocol import Report

#: Starts of a program that are remembered; a board that starts so often in a row is ill otherwise.
_RUNS = 50


def started(session: Session, device: DeviceRow, program: str, run: str) -> None:
    """Notes which start of a program asks for access."""
    runs = session.exec(
        select(DeviceRunRow)
        .where(DeviceRunRow.device == device.id, DeviceRunRow.program == program)
        .order_by(col(DeviceRunRow.order).desc())
    ).all()
    if runs and runs[0].run == run:
        return
    if any(each.run == run for each in runs):
        suspect(session, device, f"two of its {program}s run in turn")
        session.exec(delete(DeviceRunRow).where(col(DeviceRunRow.run) == run))
    session.add(DeviceRunRow(device=device.id, program=program, run=run))
    for each in runs[_RUNS:]:
        session.delete(each)


def told_twice(session: Session, device: DeviceRow, stored: str, report: Report) -> None:
    """Looks at a report whose number was taken before.

    ``lost`` is counted when a report is sent, so that the same one may bear another figure.
    """
    before = wire.decode(stored.encode(), Report, "stored report")
    if replace(before, lost=0) != replace(report, lost=0):
        suspect(session, device, f"report {report.boot_id} {report.seq} came twice, and differs")


def suspect(session: Session, device: DeviceRow, why: str) -> None:
    """Lists a board as a suspected clone until a person clears it; told once."""
    if device.suspected_clone is not None:
        return
    device.suspected_clone, device.suspicion = time.time(), why
    session.add(device)
    changes.note(session, "device", device.id)
    record(session, "server", "suspected clone", device.id, why)
