"""Takes windows in, rolls them up, forgets what is old, answers what was measured."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import CursorResult, Table, delete, insert
from sqlmodel import Session, col, select

from kedge_server.releases.tables import ReleaseRow
from kedge_server.telemetry import sums
from kedge_server.telemetry.sums import Level, Sums
from kedge_server.telemetry.tables import TelemetryRow, WindowRow
from kedge_shared import wire
from kedge_shared.protocol import Window
from kedge_shared.telemetry import TelemetryInfo

_WINDOWS: Table = WindowRow.__table__  # type: ignore[attr-defined]
#: Rows of one transaction: other writers wait meanwhile.
_BATCH = 2000
#: Of a release's name (kedge_shared.ids).
_LONGEST = 64

Key = tuple[Level, int, str, str]


@dataclass(frozen=True)
class Retention:
    """How long sums are kept.

    Attributes:
        hours_seconds: By the hour; then only by the day.
        days_seconds: By the day.
    """

    hours_seconds: float
    days_seconds: float


@dataclass(frozen=True)
class Measured:
    """A window as it comes from a board.

    Attributes:
        device_class: The board's.
        release: That it ran.
        window: What it measured.
    """

    device_class: str
    release: str
    window: Window


def take(session: Session, windows: Sequence[Measured], now: float) -> None:
    """Queues windows within the transaction of their reports, one row a class and release."""
    parts: dict[tuple[str, str], list[Sums]] = defaultdict(list)
    for each in windows:
        parts[each.device_class, each.release[:_LONGEST]].append(sums.of(each.window))
    rows = [
        {"at": now, "device_class": device_class, "release": release,
         "body": wire.encode(sums.total(held)).decode()}
        for (device_class, release), held in parts.items()
    ]  # fmt: skip
    if rows:
        session.connection().execute(insert(_WINDOWS), rows)


def roll_up(session: Session) -> int:
    """Adds what is queued to its hour and day; returns how many rows that were.

    Each is counted once, of however many schedulers: a row is taken out of the queue in the
    transaction that adds it, and only who took it out adds it.
    """
    oldest = select(WindowRow.id).order_by(col(WindowRow.id)).limit(_BATCH)
    taken = session.execute(
        delete(_WINDOWS)
        .where(_WINDOWS.c.id.in_(oldest))
        .returning(_WINDOWS.c.at, _WINDOWS.c.device_class, _WINDOWS.c.release, _WINDOWS.c.body)
    ).all()
    known = set(session.exec(select(ReleaseRow.release).distinct()))
    found: dict[Key, list[Sums]] = defaultdict(list)
    for at, device_class, release, body in taken:
        # A board may call its release what it likes; unknown names would be rows without end.
        named = release if release in known else ""
        part = wire.decode(body.encode(), Sums, "stored window")
        for level in sums.SECONDS:
            found[level, sums.start_of(level, at), device_class, named].append(part)
    for key, parts in found.items():
        _add(session, key, parts)
    return len(taken)


def _add(session: Session, key: Key, parts: Sequence[Sums]) -> None:
    level, start, device_class, release = key
    row = session.get(TelemetryRow, key, with_for_update=True)
    held = [_read(row)] if row is not None else []
    if row is None:
        row = TelemetryRow(
            level=level, start=start, device_class=device_class, release=release, body=""
        )
    row.body = wire.encode(sums.total([*held, *parts])).decode()
    session.add(row)


def forget(session: Session, retention: Retention, now: float) -> int:
    """Drops sums that are older than they are kept; returns how many."""
    limits = {"hour": retention.hours_seconds, "day": retention.days_seconds}
    dropped = 0
    for level, seconds in limits.items():
        done: CursorResult[Any] = session.execute(  # type: ignore[assignment]
            delete(TelemetryRow).where(
                col(TelemetryRow.level) == level, col(TelemetryRow.start) < now - seconds
            )
        )
        dropped += done.rowcount
    return dropped


def measured(
    session: Session, level: Level, since: float, until: float, device_class: str = "",
    release: str = "",
) -> list[TelemetryInfo]:  # fmt: skip
    """Returns what was measured, oldest first, by class and release (empty is any)."""
    query = select(TelemetryRow).where(
        TelemetryRow.level == level,
        col(TelemetryRow.start) > since - sums.SECONDS[level],
        col(TelemetryRow.start) < until,
    )
    if device_class:
        query = query.where(TelemetryRow.device_class == device_class)
    if release:
        query = query.where(TelemetryRow.release == release)
    ordered = query.order_by(
        col(TelemetryRow.start), col(TelemetryRow.device_class), col(TelemetryRow.release)
    )
    return [info(row.start, level, row.device_class, row.release, _read(row))
            for row in session.exec(ordered)]  # fmt: skip


def info(start: int, level: Level, device_class: str, release: str, held: Sums) -> TelemetryInfo:
    """Returns what people and machines see of sums."""
    latency = held.latency_ms
    return TelemetryInfo(
        start=start, seconds=sums.SECONDS[level], device_class=device_class, release=release,
        windows=held.windows, frames=held.frames, dropped=held.dropped, errors=held.errors,
        p50_ms=latency.quantile(0.5), p95_ms=latency.quantile(0.95),
        p99_ms=latency.quantile(0.99), latency_ms=latency, confidence=held.confidence,
    )  # fmt: skip


def _read(row: TelemetryRow) -> Sums:
    return wire.decode(row.body.encode(), Sums, "stored telemetry")
