"""Polls, reports and rollouts at fleet scale: ``python benchmarks/server.py [--json]``.

One server process pinned to one core, the load on another: ``wrk`` at full speed, and an open loop
of our own where a rate is given (``benchmarks/server_load.py``). Beside the server runs a plain
ASGI application under the same uvicorn, uvloop and httptools, in turns with it: on a machine that
others use, only the ratio of the two and the processor time can be trusted. ``--postgresql`` starts
one on the same two cores.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from statistics import median

# Before the project's own: `python benchmarks/server.py` puts benchmarks/ on the path.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks import server_fleet, server_fleet_rollout, server_reports
from benchmarks.common import Row, as_object, as_table
from benchmarks.server_fleet import LOAD_CORE, Fleet, Running
from benchmarks.server_load import send_all, send_paced
from kedge_shared.machine import describe
from tests.sim.postgres import postgres

_ROUNDS = 3
_WRK_SECONDS = 5
_LINES, _HERD_LINES = 64, 256
_REPORTS = 5000
_SPENT = ", processor time of one"
_IN_PLAIN = ", processor time of one in answers of the plain application"
_TARGET_REPORTS, _TARGET_ASSIGN, _TARGET_MB, _TARGET_BYTES = 1500, 2.0, 250, 2048
_TARGET_POLLS, _TARGET_SHARE, _TARGET_P99_MS, _TARGET_FLAT = 5000, 50, 50, 15


def poll_request(token: str, etag: str = "") -> bytes:
    """Returns a poll as a board sends it."""
    known = f"If-None-Match: {etag}\r\n" if etag else ""
    return (
        f"GET /api/v1/device/poll HTTP/1.1\r\nHost: kedge\r\nUser-Agent: kedge-agent/0.1.0\r\n"
        f"Accept: */*\r\nAccept-Encoding: identity\r\nX-Kedge-Counter: 0\r\n"
        f"Authorization: Bearer {token}\r\n{known}\r\n"
    ).encode()


def polls_of(fleet: Fleet) -> Iterator[bytes]:
    """Returns every device's first poll."""
    return (poll_request(fleet.token(at)) for at in range(fleet.devices))


def learn(running: Running, fleet: Fleet) -> list[bytes]:
    """Lets every device poll once; returns their next polls, in a shuffled order."""
    etags = [""] * fleet.devices

    def heard(at: int, status: int, head: bytes) -> None:
        if status != 200:
            raise SystemExit(f"a first poll was answered {status}")
        etags[at] = re.search(rb"(?i)\r\netag: ([^\r]+)", head)[1].decode()  # type: ignore[index]

    send_all(running.url, polls_of(fleet), _LINES, heard)
    step = next(each for each in (7919, 7907, 1) if fleet.devices % each)
    order = (at * step % fleet.devices for at in range(fleet.devices))
    return [poll_request(fleet.token(at), etags[at]) for at in order]


@dataclass(frozen=True)
class Wrk:
    """What ``wrk`` says.

    Attributes:
        rate: Answers a second.
        wrong: Answers that were neither 2xx nor 3xx.
    """

    rate: float
    wrong: int


def wrk(url: str, requests: Sequence[bytes], home: Path) -> Wrk:
    """Sends requests in turn, as fast as they are answered."""
    lines, script = home / "requests", home / "wrk.lua"
    lines.write_bytes(b"".join(each.replace(b"\r\n", b"\\r\\n") + b"\n" for each in requests))
    script.write_text(
        f'local all, at = {{}}, 0\nfor line in io.lines("{lines}") do\n'
        '  all[#all + 1] = line:gsub("\\\\r\\\\n", "\\r\\n")\nend\n'
        "request = function()\n  at = at % #all + 1\n  return all[at]\nend\n"
    )
    done = subprocess.run(
        ["taskset", "-c", str(LOAD_CORE), "wrk", "-t1", f"-c{_LINES}", f"-d{_WRK_SECONDS}s",
         "-s", str(script), url], capture_output=True, text=True, check=True,
    )  # fmt: skip
    rate = float(re.search(r"Requests/sec:\s+([\d.]+)", done.stdout)[1])  # type: ignore[index]
    wrong = re.search(r"Non-2xx or 3xx responses: (\d+)", done.stdout)
    return Wrk(rate, int(wrong[1]) if wrong else 0)


@dataclass(frozen=True)
class Polls:
    """Polls of one size of fleet.

    Attributes:
        devices: How many.
        rate: A second, median of the rounds.
        plain: Of the plain application.
        share: Of the plain application's rate, %, median over rounds.
        p99_ms: At 80 % of the rate.
        spent_us: Processor time of one.
        wrong: Answers that were errors.
        in_plain: Answers that the plain application gives in that time, median over rounds.
    """

    devices: int
    rate: float
    plain: float
    share: float
    p99_ms: float
    spent_us: float
    wrong: int
    in_plain: float


def polls(fleet: Fleet, running: Running, requests: Sequence[bytes]) -> Polls:
    """Measures polls in turns with a plain application."""
    rates, plains, spent, wrong = [], [], [], 0
    with server_fleet.plain() as plain:
        for _ in range(_ROUNDS):
            plains.append(wrk(plain.url, requests, fleet.home).rate)
            before = running.cpu_seconds
            found = wrk(running.url, requests, fleet.home)
            spent.append(1e6 * (running.cpu_seconds - before) / (found.rate * _WRK_SECONDS))
            rates.append(found.rate)
            wrong += found.wrong
    rate = median(rates)
    paced = send_paced(running.url, requests, 0.8 * rate, _WRK_SECONDS, _LINES)
    share = median(100 * mine / its for mine, its in zip(rates, plains, strict=True))
    return Polls(
        devices=fleet.devices, rate=rate, plain=median(plains), share=share,
        p99_ms=1000 * paced.quantile(0.99), spent_us=median(spent), wrong=wrong + paced.failed,
        in_plain=median(mine * its / 1e6 for mine, its in zip(spent, plains, strict=True)),
    )  # fmt: skip


def poll_rows(found: Polls) -> Iterator[Row]:
    """Returns the rows of one size of fleet."""
    size = f"{found.devices:,} devices, polls"
    yield Row(
        name=f"{size} | plain ASGI application",
        value=found.rate,
        unit="a second",
        target=_TARGET_POLLS,
        holds=found.rate >= _TARGET_POLLS,
        against=found.plain,
    )
    yield Row(
        name=f"{size}, share of the plain application's",
        value=found.share,
        unit="%",
        target=_TARGET_SHARE,
        holds=found.share >= _TARGET_SHARE,
    )
    yield Row(
        name=f"{size}, p99 at 80 % of the rate",
        value=found.p99_ms,
        unit="ms",
        target=_TARGET_P99_MS,
        holds=found.p99_ms <= _TARGET_P99_MS,
    )
    yield Row(
        name=f"{size}{_SPENT}",
        value=found.spent_us,
        unit="µs",
        target=1e6 / _TARGET_POLLS,
        holds=found.spent_us <= 1e6 / _TARGET_POLLS,
    )
    yield Row(name=f"{size}{_IN_PLAIN}", value=found.in_plain, unit="answers")
    yield Row(name=f"{size}, errors", value=found.wrong, unit="answers", target=0,
              holds=found.wrong == 0)  # fmt: skip


def report_rows(fleet: Fleet, running: Running) -> Iterator[Row]:
    """Sends one report a request, of many devices."""
    count = min(_REPORTS, fleet.devices)
    requests = [server_reports.request(fleet, at, 1) for at in range(count)]
    before = running.cpu_seconds
    found = send_all(running.url, iter(requests), _LINES)
    spent = 1e6 * (running.cpu_seconds - before) / count
    size = f"{fleet.devices:,} devices, reports"
    yield Row(
        name=size,
        value=found.rate,
        unit="a second",
        target=_TARGET_REPORTS,
        holds=found.rate >= _TARGET_REPORTS,
    )
    yield Row(
        name=f"{size}, processor time of one",
        value=spent,
        unit="µs",
        target=1e6 / _TARGET_REPORTS,
        holds=spent <= 1e6 / _TARGET_REPORTS,
    )
    yield Row(name=f"{size} that were not taken", value=count - found.statuses[200],
              unit="reports", target=0, holds=found.statuses[200] == count)  # fmt: skip


def herd_rows(fleet: Fleet, requests: Sequence[bytes]) -> Iterator[Row]:
    """Lets the whole fleet return at once to a server that has just been started."""
    with server_fleet.kedge(fleet) as running:
        found = send_all(running.url, iter(requests), _HERD_LINES)
    yield Row(
        name=f"{fleet.devices:,} devices return at once, 5xx",
        value=found.failed,
        unit="answers",
        target=0,
        holds=found.failed == 0,
    )
    yield Row(name=f"{fleet.devices:,} devices return at once, all answered", value=found.seconds,
              unit="s", target=server_fleet.POLL_SECONDS,
              holds=found.seconds <= server_fleet.POLL_SECONDS)  # fmt: skip


def fleet_rows(fleet: Fleet) -> Iterator[Row]:
    """Rolls a release out to a fleet within this process."""
    found = server_fleet_rollout.roll_out(fleet)
    size = f"{fleet.devices:,} devices, staged rollout"
    if found.state != "completed":
        raise SystemExit(f"the rollout is {found.state}")
    yield Row(name=f"{size}: created", value=found.create.wall, unit="s")
    yield Row(name=f"{size}: created, processor time", value=found.create.cpu, unit="s")
    name = f"{size}: stage of {found.assigned:,} judged and assigned"
    yield Row(
        name=name,
        value=found.assign.wall,
        unit="s",
        target=_TARGET_ASSIGN,
        holds=found.assign.wall <= _TARGET_ASSIGN,
    )
    yield Row(
        name=f"{name}, processor time",
        value=found.assign.cpu,
        unit="s",
        target=_TARGET_ASSIGN,
        holds=found.assign.cpu <= _TARGET_ASSIGN,
    )
    yield Row(name=f"{size}: all of it", value=found.all.wall, unit="s")
    yield Row(name=f"{size}: all of it, processor time", value=found.all.cpu, unit="s")


def measure(home: Path, devices: int, database: str, largest: bool) -> Iterator[Row]:
    """Measures one size of fleet."""
    fleet = server_fleet.seed(home, devices, database)
    with server_fleet.kedge(fleet) as running:
        requests = learn(running, fleet)
        yield from poll_rows(polls(fleet, running, requests))
        yield from report_rows(fleet, running)
        if largest:
            yield Row(
                name=f"{devices:,} devices, resident memory",
                value=running.rss_mb,
                unit="MiB",
                target=_TARGET_MB,
                holds=running.rss_mb <= _TARGET_MB,
            )
    if largest:
        yield from herd_rows(fleet, requests)
        size = server_reports.bytes_a_day(fleet)
        yield Row(
            name="database, a device and day of 288 reports and one restart",
            value=size,
            unit="bytes",
            target=_TARGET_BYTES,
            holds=size <= _TARGET_BYTES,
        )
        yield from fleet_rows(fleet)  # fmt: skip


def flat_rows(found: Sequence[Row]) -> Iterator[Row]:
    """Says by how much the largest fleet's polls are slower than the smallest's.

    Also by the plain application's answers of the same minutes: sizes come one after the other, and
    the machine may be slower by then.
    """
    for what, told in ((_SPENT, "processor time"), (_IN_PLAIN, "of the plain application's time")):
        spent = [
            each.value for each in found
            if each.value is not None and each.name.endswith(f"polls{what}")
        ]  # fmt: skip
        if len(spent) > 1:
            more = 100 * (spent[-1] / spent[0] - 1)
            yield Row(name=f"polls, more {told} for the largest fleet than the smallest",
                      value=more, unit="%", target=_TARGET_FLAT,
                      holds=more <= _TARGET_FLAT)  # fmt: skip


def main() -> int:
    """Prints the table, or one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--devices", type=int, nargs="*", default=[1_000, 100_000])
    parser.add_argument("--postgresql", action="store_true", help="instead of SQLite")
    given = parser.parse_args()
    os.sched_setaffinity(0, {LOAD_CORE})
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as folder, ExitStack() as opened:
        grown = opened.enter_context(postgres("fsync=on")) if given.postgresql else None
        for devices in sorted(given.devices):
            database = grown.empty() if grown is not None else ""
            home, largest = Path(folder) / str(devices), devices == max(given.devices)
            for row in measure(home, devices, database, largest):
                rows.append(row)
                print(f"  {row.name}: {row.value:.4g} {row.unit}", file=sys.stderr, flush=True)
        rows += flat_rows(rows)
    what = f"{describe()}; uvicorn, uvloop, httptools; {'PostgreSQL' if grown else 'SQLite'}"
    print(as_object(what, rows) if given.json else f"{what}\n{as_table(rows, 'against')}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
