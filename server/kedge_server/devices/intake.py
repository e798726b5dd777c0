"""Takes reports: each once, many in one transaction.

A report is known by (device, boot_id, seq); what was taken of a start of a board stands in one row
(:mod:`kedge_server.devices.ledger`). Reports of phases are kept. Of windows of telemetry, which
come every few minutes for ever, the newest of each start is kept and the others go into the figures
of device and rollout.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import msgspec
from sqlalchemy import Row, Table, bindparam, delete, insert, select, tuple_, update
from sqlmodel import Session

from kedge_server import auth
from kedge_server.attestations import service as attestations
from kedge_server.database import now, transaction, upsert
from kedge_server.devices import clones, enrolment, ledger, trace
from kedge_server.devices.assignments import lock_devices
from kedge_server.devices.batches import Batches
from kedge_server.devices.door import Answer, Asked
from kedge_server.devices.ledger import Ledger
from kedge_server.devices.tables import DeviceRow, LedgerRow, ReportRow
from kedge_server.errors import RequestError
from kedge_server.replicas import changes
from kedge_server.rollouts import reports as rollouts
from kedge_server.telemetry import service as telemetry
from kedge_server.telemetry.service import Measured
from kedge_shared import signing, wire
from kedge_shared.errors import InputError, TrustError
from kedge_shared.protocol import REPORT_BATCH, REPORT_LIMIT_BYTES, REPORT_TYPE, Report

if TYPE_CHECKING:
    from kedge_server.context import Context

PATH = "/api/v1/device/reports"
_BATCH, _WAITING = 100, 5_000
#: What a database's integer holds.
_LARGEST = 2**63
_DEVICES: Table = DeviceRow.__table__  # type: ignore[attr-defined]
_LEDGERS: Table = LedgerRow.__table__  # type: ignore[attr-defined]
_REPORTS: Table = ReportRow.__table__  # type: ignore[attr-defined]


@dataclass(frozen=True)
class Sent:
    """Reports of one request.

    Attributes:
        device: Who sent them.
        envelopes: Signed.
    """

    device: str
    envelopes: list[dict[str, Any]]


@dataclass(frozen=True)
class Taken:
    """What became of the reports of one request.

    Attributes:
        accepted: New.
        duplicates: Known.
    """

    accepted: int
    duplicates: int


class Intake:
    """Takes reports.

    Args:
        services: The server's parts.
    """

    def __init__(self, services: Context) -> None:
        self._services = services
        self._batches: Batches[Sent, Taken] = Batches("reports", self._take, _BATCH, _WAITING)

    async def answer(self, asked: Asked) -> Answer:
        """Takes up to ``REPORT_BATCH`` reports."""
        device = await auth.device_asking_soon(
            self._services, asked.headers.get(b"authorization", b"")
        )
        body = await asked.body(REPORT_LIMIT_BYTES * 8)
        taken = await self._batches.do(Sent(device, _envelopes(body)))
        return Answer(200, [], wire.encode(taken))

    def _take(self, sent: Sequence[Sent]) -> Sequence[Taken | Exception]:
        with transaction(self._services.engine) as session:
            taken = take(session, sent, now(session))
            # A rollout may have been halted, or a board seem to be two.
            told = changes.noted(session)
        if told:
            self._services.follower.follow()
        return taken

    def close(self) -> None:
        """Ends once what was begun is written."""
        self._batches.close()


def _envelopes(body: bytes) -> list[dict[str, Any]]:
    try:
        found = msgspec.json.decode(body)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError):
        raise RequestError("body is no JSON") from None
    if not isinstance(found, list) or len(found) > REPORT_BATCH:
        raise RequestError(f"reports are a list of at most {REPORT_BATCH}")
    if not all(isinstance(each, dict) for each in found):
        raise RequestError("a report is a signed message")
    return found


@dataclass
class _Desk:
    """What a batch is worked on with, and what it has to write."""

    devices: Mapping[str, Row[Any]]
    ledgers: dict[tuple[str, str], _Page]
    figures: dict[str, dict[str, Any]] = field(default_factory=dict)
    reports: dict[tuple[str, str, int], dict[str, Any]] = field(default_factory=dict)
    outdated: list[tuple[str, str, int]] = field(default_factory=list)
    fresh: list[Report] = field(default_factory=list)
    repeated: list[Report] = field(default_factory=list)


@dataclass(frozen=True)
class _Page:
    """What was taken of one start of a board, and what is kept of its telemetry."""

    taken: Ledger = field(default_factory=Ledger)
    telemetry: int | None = None
    trace: str = ""


def take(session: Session, sent: Sequence[Sent], at: float) -> list[Taken | Exception]:
    """Takes reports of several requests; one that is not to be trusted takes its request with it.

    Args:
        session: Of the batch.
        sent: The requests.
        at: Unix seconds.
    """
    # Two servers may be sent the same report: what was taken is read when the other is done.
    lock_devices(session, {each.device for each in sent})
    desk = _Desk(_devices(session, sent), {})
    opened: list[list[Report] | Exception] = [_open_all(each, desk.devices) for each in sent]
    good = [report for each in opened if isinstance(each, list) for report in each]
    desk.ledgers = _ledgers(session, good)
    results: list[Taken | Exception] = []
    for each in opened:
        if isinstance(each, Exception):
            results.append(each)
            continue
        fresh = sum(_enter(desk, report, at) for report in each)
        results.append(Taken(fresh, len(each) - fresh))
    _write(session, desk, at)
    _look_twice(session, desk.repeated)
    return results


def _devices(session: Session, sent: Sequence[Sent]) -> dict[str, Row[Any]]:
    columns = (
        "id",
        "device_class",
        "public_key",
        "release",
        "engine",
        "phase",
        "frames",
        "latency_p95_ms",
        "serves",
    )
    query = select(*(_DEVICES.c[each] for each in columns))
    rows = session.execute(query.where(_DEVICES.c.id.in_({each.device for each in sent})))
    return {each.id: each for each in rows}


def _ledgers(session: Session, reports: Sequence[Report]) -> dict[tuple[str, str], _Page]:
    keys = {(each.device, each.boot_id) for each in reports}
    if not keys:
        return {}
    query = select(_LEDGERS).where(tuple_(_LEDGERS.c.device, _LEDGERS.c.boot_id).in_(keys))
    return {
        (each.device, each.boot_id): _Page(ledger.read(each.taken), each.telemetry, each.trace)
        for each in session.execute(query)
    }


def _open_all(sent: Sent, devices: Mapping[str, Row[Any]]) -> list[Report] | Exception:
    row = devices.get(sent.device)
    if row is None:
        return RequestError(f"there is no device {sent.device}")
    try:
        key = _key(row.public_key)
        return [_open(at, each, sent.device, key) for at, each in enumerate(sent.envelopes)]
    except RequestError as error:
        return error


@lru_cache(maxsize=10_000)
def _key(text: str) -> Any:
    return signing.key_from_dict(json.loads(text))


def _open(at: int, envelope: dict[str, Any], device: str, key: Any) -> Report:
    try:
        report = signing.unseal(envelope, REPORT_TYPE, Report, key, limit_bytes=REPORT_LIMIT_BYTES)
    except (TrustError, InputError) as error:
        raise RequestError(f"report {at} is not to be trusted: {error}") from None
    if report.device != device:
        raise RequestError(f"report {at} is of {report.device}, not of {device}")
    frames = report.window.frames if report.window else 0
    if max(report.seq, frames) >= _LARGEST:
        raise RequestError(f"report {at} counts further than anybody can")
    return report


def _enter(desk: _Desk, report: Report, received: float) -> bool:
    """Enters a report; says whether it is new."""
    at = (report.device, report.boot_id)
    page = desk.ledgers.get(at, _Page())
    if page.taken.has(report.seq):
        desk.repeated.append(report)
        return False
    figures = desk.figures.setdefault(report.device, _figures(desk.devices[report.device]))
    before = (figures["phase"], figures["engine"], figures["release"])
    news = report.window is None or before != (report.phase.value, report.engine, report.release)
    kept = page.telemetry
    if not news:
        if kept is not None:
            desk.outdated.append((*at, kept))
        kept = report.seq
    times = report.window.latency_ms.quantiles(trace.SHARES) if report.window else []
    line = trace.grown(page.trace, received, times)
    desk.ledgers[at] = _Page(page.taken.with_(report.seq), kept, line)
    key = (report.device, report.boot_id, report.seq)
    desk.reports[key] = {
        "device": report.device, "boot_id": report.boot_id, "seq": report.seq, "received": received,
        "deployment": report.deployment, "phase": report.phase.value,
        "body": wire.encode(report).decode(),
    }  # fmt: skip
    figures |= {"last_seen": received, "engine": report.engine, "release": report.release,
                "phase": report.phase.value}  # fmt: skip
    if report.window is not None:
        figures["frames"] = min(figures["frames"] + report.window.frames, _LARGEST - 1)
        figures["latency_p95_ms"] = times[1] if times else None
    desk.fresh.append(report)
    return True


def _figures(row: Row[Any]) -> dict[str, Any]:
    return {
        "key": row.id, "engine": row.engine, "release": row.release, "phase": row.phase,
        "frames": row.frames, "latency_p95_ms": row.latency_p95_ms,
    }  # fmt: skip


_FIGURES = update(_DEVICES).where(_DEVICES.c.id == bindparam("key"))


def _write(session: Session, desk: _Desk, received: float) -> None:
    if not desk.fresh:
        return
    connection = session.connection()
    connection.execute(_FIGURES, list(desk.figures.values()))
    pages = {(each.device, each.boot_id) for each in desk.fresh}
    upsert(session, _LEDGERS, [
        {"device": device, "boot_id": boot, "taken": ledger.write(page.taken),
         "telemetry": page.telemetry, "trace": page.trace, "received": received}
        for (device, boot), page in ((each, desk.ledgers[each]) for each in pages)
    ], ("taken", "telemetry", "trace", "received"))  # fmt: skip
    stored = []
    for key in desk.outdated:
        # Of two windows in one batch the older one is not written at all.
        if desk.reports.pop(key, None) is None:
            stored.append(dict(zip(("k_device", "k_boot_id", "k_seq"), key, strict=True)))
    if stored:
        names = ("device", "boot_id", "seq")
        same = (_REPORTS.c[each] == bindparam(f"k_{each}") for each in names)
        connection.execute(delete(_REPORTS).where(*same), stored)
    if desk.reports:
        connection.execute(insert(_REPORTS), list(desk.reports.values()))
    rollouts.take(session, desk.fresh, received)
    for each in desk.fresh:
        if each.facts is not None or not desk.devices[each.device].serves:
            enrolment.hear(session, session.get_one(DeviceRow, each.device), each.facts)
        if each.attestation is not None:
            row = session.get_one(DeviceRow, each.device)
            attestations.take(session, row, each, received)
    windows = [
        Measured(desk.devices[each.device].device_class, each.release, each.window)
        for each in desk.fresh if each.window is not None
    ]  # fmt: skip
    telemetry.take(session, windows, received)


def _look_twice(session: Session, repeated: Sequence[Report]) -> None:
    """Looks at numbers that came before: with another report they are a second board's."""
    for each in repeated:
        stored = session.get(ReportRow, (each.device, each.boot_id, each.seq))
        device = session.get(DeviceRow, each.device) if stored is not None else None
        if stored is not None and device is not None:
            clones.told_twice(session, device, stored.body, each)


def prune(session: Session, before: float) -> None:
    """Forgets starts of boards that were last heard of before ``before``, and their reports."""
    old = select(_LEDGERS.c.device, _LEDGERS.c.boot_id).where(_LEDGERS.c.received < before)
    at = tuple_(_REPORTS.c.device, _REPORTS.c.boot_id)
    session.execute(delete(_REPORTS).where(at.in_(old)))
    session.execute(delete(_LEDGERS).where(_LEDGERS.c.received < before))
