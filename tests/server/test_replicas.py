"""Several real servers over one PostgreSQL, killed and restarted at work: nothing is lost or twice.

Clocks differ by minutes where libfaketime is there.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import select

from kedge_builder.publishing import keys
from kedge_server.audit.tables import AuditRow
from kedge_server.database import connect, transaction
from kedge_server.devices import ledger
from kedge_server.devices.tables import DeviceRow, LedgerRow
from kedge_shared import histogram
from kedge_shared.audit import broken_at
from kedge_shared.client import Client
from kedge_shared.errors import ServiceError
from kedge_shared.phases import Phase
from kedge_shared.protocol import Window
from tests.sim.device import SimDevice
from tests.sim.postgres import Postgres, missing, postgres
from tests.sim.world import TOKEN, World
from tests.waiting import PATIENCE

FAKETIME = Path("/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1")
DEVICES, REPLICAS = 12, 3


@dataclass
class Replica:
    """One ``kedge server run``."""

    home: Path
    trust: Path
    database: str
    skew: str
    url: str = ""
    process: subprocess.Popen[str] | None = None

    def start(self) -> None:
        port = self.url.rpartition(":")[2] or "0"
        arguments = ["server", "run", "--data", str(self.home), "--trust", str(self.trust),
                     "--port", port, "--tick-seconds", "0.3", "--poll-seconds", "1"]  # fmt: skip
        skewed = {"LD_PRELOAD": str(FAKETIME), "FAKETIME": self.skew,
                  "FAKETIME_DONT_FAKE_MONOTONIC": "1"} if FAKETIME.exists() else {}  # fmt: skip
        self.process = subprocess.Popen(
            [sys.executable, "-c", "from kedge_shared.cli import main; main()", *arguments],
            stdout=subprocess.PIPE, text=True,
            env={**os.environ, **skewed, "KEDGE_SERVER_DATABASE": self.database,
                 "KEDGE_SERVER_OPERATOR_TOKEN": TOKEN, "KEDGE_SERVER_LEASE_SECONDS": "2",
                 "KEDGE_SERVER_CHANGE_SECONDS": "0.3",
                 "KEDGE_SERVER_STORE": str(self.home.parent / "store")},
        )  # fmt: skip
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if "http" in line:
            self.url = line.split()[2].rstrip(",")

    def end(self, how: signal.Signals) -> None:
        if self.process is not None:
            self.process.send_signal(how)
            self.process.wait(PATIENCE)
            assert self.process.stdout is not None
            self.process.stdout.close()
            self.process = None


@pytest.fixture
def durable() -> Iterator[Postgres]:
    if missing():
        pytest.skip(missing())
    with postgres("fsync=on") as found:
        yield found


@contextmanager
def replicas(home: Path, database: str) -> Iterator[tuple[keys.KeySet, list[Replica]]]:
    trust = keys.create(home / "trust")
    made = [
        Replica(home / f"server-{at}", trust.online.parent, database, skew)
        for at, skew in enumerate(("+0", "+170s", "-170s")[:REPLICAS])
    ]
    with ExitStack() as ended:
        for each in made:
            ended.callback(lambda it=each: it.end(signal.SIGKILL))
            each.start()
        yield trust, made


@dataclass
class Board:
    """A board whose requests go to any replica, again until one takes them."""

    device: SimDevice
    made: list[Replica]
    draw: random.Random
    statuses: Counter[int]
    counters: list[int] = field(default_factory=list)
    frames: int = 0
    sent: int = 0

    def ask(self, http: httpx.Client, work: Callable[[], httpx.Response]) -> httpx.Response:
        for _ in range(2000):
            http.base_url = httpx.URL(self.draw.choice(self.made).url)
            try:
                answer = work()
            except httpx.TransportError:
                time.sleep(0.05)
                continue
            self.statuses[answer.status_code] += 1
            if answer.status_code < 500:
                return answer
            assert answer.status_code == 503, answer.text
            assert int(answer.headers["retry-after"]) > 0
            time.sleep(0.05)
        raise AssertionError("no server took it")

    def turn(self) -> None:
        """Polls; reports out of order, twice, and to several servers at once."""
        answer = self.ask(self.device.http, self.device.poll)
        assert answer.status_code in {200, 304}
        found = self.device.assignment
        if found is not None:
            self.counters.append(found.counter)
        if found is None or found.manifest is None:
            return
        window = Window(started=0, seconds=1, frames=10,
                        latency_ms=histogram.of([10.0, 11.0]))  # fmt: skip
        self.device.runs = found.manifest.path
        first = self.device.report(Phase.PROBATION)
        second = self.device.report(Phase.CONFIRMED, window=window)
        self.frames += 10
        self.sent += 2
        sent = self.draw.sample([[second], [first], [second, first]], 3)
        with ThreadPoolExecutor(3) as at_once:
            accepted = sum(at_once.map(self.send, sent))
        assert accepted <= 2

    def send(self, envelopes: list[dict[str, Any]]) -> int:
        """Sends reports over a line of their own; returns how many were new."""
        with httpx.Client(headers=self.device.http.headers, timeout=PATIENCE) as http:
            answer = self.ask(http, lambda: http.post("/api/v1/device/reports", json=envelopes))
        taken = answer.json()
        assert taken["accepted"] + taken["duplicates"] == len(envelopes)
        return int(taken["accepted"])


@pytest.mark.slow
def test_killed_restarted_and_skewed_servers_lose_and_double_nothing(
    tmp_path: Path, durable: Postgres
) -> None:
    draw, url, over = random.Random(5), durable.empty(), threading.Event()
    statuses: Counter[int] = Counter()
    failures: list[BaseException] = []
    with replicas(tmp_path, url) as (trust, made), ExitStack() as opened:
        operator = opened.enter_context(Client(made[0].url, TOKEN))
        world = World(tmp_path, trust, None, made[0].url, operator)  # type: ignore[arg-type]
        world.publish("1.0", 10)
        boards = [
            Board(world.enrol(f"cam-{at}"), made, random.Random(at), statuses)
            for at in range(DEVICES)
        ]
        for each in boards:
            opened.callback(each.device.http.close)
        rollout = world.roll_out("1.0", 10, 40, 100).id

        def live(board: Board) -> None:
            try:
                while not over.is_set():
                    board.turn()
                    time.sleep(board.draw.random() * 0.3)
            except BaseException as error:  # noqa: BLE001 - told in the test's own thread
                failures.append(error)

        threads = [threading.Thread(target=live, args=(each,)) for each in boards]
        for thread in threads:
            thread.start()
        harass(made, durable, draw)
        state = ended(operator, rollout, made, failures)
        over.set()
        for thread in threads:
            thread.join(PATIENCE)
        assert not failures, failures
        assert state == "completed"
    check(url, rollout, boards, statuses)


def harass(made: list[Replica], database: Postgres, draw: random.Random) -> None:
    """Kills servers at random moments, and the database in their midst."""
    for at in range(5):
        time.sleep(1 + draw.random() * 2)
        if at == 2:
            database.stop(signal.SIGKILL)
            database.start()
            continue
        one = draw.choice(made)
        one.end(signal.SIGKILL)
        one.start()


def ended(
    operator: Client, rollout: str, made: list[Replica], failures: list[BaseException]
) -> str:
    """Waits for the rollout's end; returns its state."""
    state = ""
    for at in range(240):
        time.sleep(0.5)
        operator.http.base_url = httpx.URL(made[at % len(made)].url)
        with suppress(ServiceError):
            state = operator.rollout(rollout).state
        if state == "completed" or failures:
            break
    return state


def check(url: str, rollout: str, boards: list[Board], statuses: Counter[int]) -> None:
    assert set(statuses) <= {200, 304, 503}
    engine = connect(url)
    with transaction(engine) as session:
        taken: dict[str, set[int]] = defaultdict(set)
        for row in session.execute(select(LedgerRow)).scalars():
            for first, last in ledger.read(row.taken).ranges:
                taken[row.device] |= set(range(first, last + 1))
        frames = {row.id: row.frames for row in session.execute(select(DeviceRow)).scalars()}
        audit = session.execute(select(AuditRow).order_by(AuditRow.id)).scalars().all()  # type: ignore[arg-type]
        assert broken_at(audit) is None
        told = Counter(each.action for each in audit if each.subject == rollout)
    engine.dispose()
    for board in boards:
        name = board.device.name
        assert taken[name] == set(range(1, board.sent + 1)), "every acknowledged report, once"
        assert frames[name] == board.frames, "no window lost, none counted twice"
        assert board.counters == sorted(board.counters), "an assignment never goes back"
    assert told["rollout stage_passed"] == 2
    assert told["rollout last_passed"] == 1
