"""Polls, reports and rollouts at fleet scale: ``python benchmarks/server.py [--json]``.

One server process pinned to one core, the load on another: ``wrk`` at full speed, and an open loop
of our own where a rate is given (``benchmarks/server_load.py``). Beside the server runs a plain
ASGI application under the same uvicorn, uvloop and httptools, in turns with it: on a machine that
others use, only the ratio of the two can be trusted. ``--database URL`` measures PostgreSQL.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

# Before the project's own: `python benchmarks/server.py` puts benchmarks/ on the path.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks import server_fleet
from benchmarks.common import Row, as_object, as_table
from benchmarks.server_fleet import LOAD_CORE, Fleet, Running
from benchmarks.server_load import send_all, send_paced
from kedge_shared.machine import describe

_ROUNDS = 3
_WRK_SECONDS = 5
_LINES = 64
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
        wrong: Answers that were errors.
    """

    devices: int
    rate: float
    plain: float
    share: float
    p99_ms: float
    wrong: int


def polls(fleet: Fleet, running: Running) -> Polls:
    """Measures polls in turns with a plain application."""
    requests = learn(running, fleet)
    rates, plains, wrong = [], [], 0
    with server_fleet.plain() as plain:
        for _ in range(_ROUNDS):
            plains.append(wrk(plain.url, requests, fleet.home).rate)
            found = wrk(running.url, requests, fleet.home)
            rates.append(found.rate)
            wrong += found.wrong
    rate = median(rates)
    paced = send_paced(running.url, requests, 0.8 * rate, _WRK_SECONDS, _LINES)
    share = median(100 * mine / its for mine, its in zip(rates, plains, strict=True))
    return Polls(fleet.devices, rate, median(plains), share, 1000 * paced.quantile(0.99),
                 wrong + paced.failed)  # fmt: skip


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
    yield Row(name=f"{size}, errors", value=found.wrong, unit="answers", target=0,
              holds=found.wrong == 0)  # fmt: skip


def main() -> int:
    """Prints the table, or one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--devices", type=int, nargs="*", default=[1_000, 100_000])
    parser.add_argument("--database", default="", help="URL of an empty PostgreSQL database")
    given = parser.parse_args()
    os.sched_setaffinity(0, {LOAD_CORE})
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as folder:
        for devices in given.devices:
            fleet = server_fleet.seed(Path(folder) / str(devices), devices, given.database)
            with server_fleet.kedge(fleet) as running:
                rows += poll_rows(polls(fleet, running))
                rows.append(Row(name=f"rss {devices}", value=running.rss_mb, unit="MiB"))
    print(as_object(describe(), rows) if given.json else as_table(rows, "against"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
