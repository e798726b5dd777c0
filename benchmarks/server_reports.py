"""Reports for the server's benchmarks: as boards sign them, and a day of them in a database."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

from sqlalchemy import Engine

from benchmarks.server_fleet import Fleet, close
from kedge_server.app import open_context
from kedge_server.database import transaction
from kedge_server.devices import intake
from kedge_server.telemetry import jobs as telemetry
from kedge_shared import histogram, signing, wire
from kedge_shared.phases import Phase
from kedge_shared.protocol import REPORT_TYPE, BoardReadings, Report, Verdict, Window

#: One window in five minutes.
A_DAY = 288
_DAY_DEVICES = 120


def report(fleet: Fleet, at: int, seq: int, boot: str = "boot-0123456789abcdef") -> dict[str, Any]:
    """Returns a device's signed window of telemetry: five minutes at 10 frames a second."""
    draw = random.Random(at * 1000 + seq)
    window = Window(
        started=1_790_000_000 + 300 * seq, seconds=300.0, frames=3000,
        detections={"open": 120, "short": 31, "spur": 64}, confidence=(50,) * 20,
        latency_ms=histogram.of(draw.gauss(25, 3) for _ in range(300)),
        board=BoardReadings(cpu=0.4, memory_available_mb=512.0, disk_free_mb=4096.0,
                            temperatures_c={"cpu": 61.0}, throttled=()),
    )  # fmt: skip
    body = Report(
        device=fleet.name(at), boot_id=boot, seq=seq, created=1_790_000_000 + 300 * seq,
        deployment="", workload="main", phase=Phase.CONFIRMED, engine="e" * 64, release="1.0",
        verdict=Verdict(code="ok"), window=window,
    )  # fmt: skip
    return signing.seal(body, REPORT_TYPE, fleet.signer)


def request(fleet: Fleet, at: int, seq: int) -> bytes:
    """Returns the request that sends one report."""
    body = wire.encode([report(fleet, at, seq)])
    head = (
        f"POST /api/v1/device/reports HTTP/1.1\r\nHost: kedge\r\nContent-Type: application/json\r\n"
        f"Authorization: Bearer {fleet.token(at)}\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


def bytes_a_day(fleet: Fleet) -> float:
    """Returns by how much a day of reports grows the database, bytes a device.

    The day begins after a device's first window, and the board is restarted once in it.
    """
    context = open_context(fleet.settings)

    def send(seq: int, boot: str) -> None:
        sent = [intake.Sent(fleet.name(at), [report(fleet, at, seq, boot)])
                for at in range(_DAY_DEVICES)]  # fmt: skip
        with transaction(context.engine) as session:
            failed = [each for each in intake.take(session, sent, 1.79e9 + 300 * seq)
                      if isinstance(each, Exception)]  # fmt: skip
        if failed:
            raise SystemExit(f"a report was refused: {failed[0]}")

    send(0, "first")
    telemetry.roll_up(context)
    before = _size(context.engine)
    for seq in range(1, A_DAY):
        send(seq, "first" if seq < A_DAY // 2 else "second")
        # As the scheduler does it: what waits in the queue is gone a minute later.
        telemetry.roll_up(context)
    grown = _size(context.engine) - before
    close(context)
    return grown / _DAY_DEVICES


def _size(engine: Engine) -> int:
    with engine.connect() as connection:
        if engine.dialect.name == "postgresql":
            autocommit = connection.execution_options(isolation_level="AUTOCOMMIT")
            autocommit.exec_driver_sql("VACUUM FULL")
            # Not the whole database: its own catalogue shrinks and grows with other things.
            size = autocommit.exec_driver_sql(
                "SELECT sum(pg_total_relation_size(oid)) FROM pg_class WHERE relkind = 'r'"
                " AND relnamespace = 'public'::regnamespace"
            )
            return int(size.scalar_one())
        raw: Any = connection.connection.driver_connection
        raw.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        free = int(raw.execute("PRAGMA freelist_count").fetchone()[0])
        page = int(raw.execute("PRAGMA page_size").fetchone()[0])
        return Path(str(engine.url.database)).stat().st_size - free * page
