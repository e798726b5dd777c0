"""Telemetry: complete, spooled, and sent so that each report counts once."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sqlmodel import select

from kedge_agent.attesting import Attester
from kedge_agent.detector import Detections
from kedge_agent.identity import Identity
from kedge_agent.journal import Journal
from kedge_agent.reporting import Reporter
from kedge_agent.sensors.sampler import Sampler
from kedge_agent.server_client import ServerClient
from kedge_agent.telemetry import Telemetry, confidence_bin
from kedge_server.database import transaction
from kedge_server.devices.tables import ReportRow
from kedge_shared import signing
from kedge_shared.errors import ServiceError
from kedge_shared.protocol import CONFIDENCE_BINS, Report
from tests.agent.test_journal import report
from tests.shared import samples
from tests.sim.board import SimBoard
from tests.sim.world import World

ME = Identity(signing.generate(), "cam", "t")


class Server:
    """Takes reports, but not those in ``refused``, and answers as it is told."""

    def __init__(self) -> None:
        self.taken: list[int] = []
        self.refused: set[int] = set()
        self.status = 0
        self.loses_answers = 0

    async def report(self, envelopes: list[dict[str, Any]]) -> None:
        if self.status:
            raise ServiceError("no", status=self.status)
        created = [signing.peek(each, Report).created for each in envelopes]
        if self.refused & set(created):
            raise ServiceError("report 0 is not to be trusted", status=400)
        self.taken += created
        if self.loses_answers:
            self.loses_answers -= 1
            raise ServiceError("server does not answer")


@pytest.fixture
def reporter(board: SimBoard) -> Reporter:
    journal = Journal(board.folder / "journal")
    attester = Attester(board.settings, samples.facts(), lambda _: samples.manifest())
    return Reporter(board.settings, journal, journal.name, Sampler(board.folder), attester)


def send(reporter: Reporter, server: Server) -> None:
    asyncio.run(reporter.send(server, ME))  # type: ignore[arg-type]


def queue(reporter: Reporter, count: int) -> None:
    for each in range(count):
        reporter._journal.queue(report(each))


def test_one_bad_report_does_not_keep_back_those_behind_it(reporter: Reporter) -> None:
    server = Server()
    server.refused = {3}
    queue(reporter, 6)
    send(reporter, server)
    assert server.taken == [0, 1, 2, 4, 5]
    assert reporter._journal.lost == 1
    assert reporter._journal.waiting(10) == []


@pytest.mark.parametrize("status", [401, 403, 404, 429, 503])
def test_a_refusal_of_the_board_forgets_nothing(reporter: Reporter, status: int) -> None:
    server = Server()
    server.status = status
    queue(reporter, 3)
    with pytest.raises(ServiceError):
        send(reporter, server)
    assert len(reporter._journal.waiting(10)) == 3
    assert reporter._journal.lost == 0


def test_an_answer_that_is_lost_is_sent_again_under_the_same_number(reporter: Reporter) -> None:
    server = Server()
    server.loses_answers = 1
    queue(reporter, 2)
    before = [seq for seq, _ in reporter._journal.waiting(10)]
    with pytest.raises(ServiceError):
        send(reporter, server)
    assert [seq for seq, _ in reporter._journal.waiting(10)] == before
    send(reporter, server)
    assert server.taken == [0, 1, 0, 1]


def test_the_server_counts_a_report_once_and_keeps_all_of_it(
    running: World, board: SimBoard
) -> None:
    board.telemetry_seconds = 1.0
    board.install()
    board.run(lambda _: any(each["window"] for each in taken(running)))
    bodies = taken(running)
    keys = {(each["boot_id"], each["seq"]) for each in bodies}
    assert len(keys) == len(bodies)
    windows = [each["window"] for each in bodies if each["window"]]
    assert windows[-1]["board"]["disk_free_mb"] > 0
    assert windows[-1]["confidence"] == [0] * 19 + [5]
    journal = Journal(board.folder / "state")
    known = journal.waiting(1)
    journal.queue(replace(report(1), device="cam-1", deployment=""))
    ((seq, again),) = [each for each in journal.waiting(99) if each not in known]
    journal.close()
    twice(running, board, seq, again)


def taken(world: World) -> list[dict[str, Any]]:
    """Returns the reports that the server has of the board."""
    with transaction(world.context.engine) as session:
        rows = session.exec(select(ReportRow).where(ReportRow.device == "cam-1")).all()
        return [json.loads(each.body) for each in rows]


def twice(world: World, board: SimBoard, seq: int, again: Report) -> None:
    """Sends one report two times, as after a lost answer."""
    from kedge_agent import access, identity

    me = identity.load(board.folder / "state")
    assert me is not None
    envelope = signing.seal(
        replace(again, seq=seq, boot_id="twice"), "application/vnd.kedge.report+json", me.signer
    )

    async def work() -> None:
        async with ServerClient(world.url) as server:
            access.let_in(me, server, "updater")
            for _ in range(2):
                await server.report([envelope])

    asyncio.run(work())
    with transaction(world.context.engine) as session:
        rows = session.exec(select(ReportRow).where(ReportRow.boot_id == "twice")).all()
        assert len(rows) == 1


@pytest.mark.parametrize(
    ("confidence", "bin_"),
    [(0.0, 0), (0.049, 0), (0.05, 1), (0.5, 10), (0.999, 19), (1.0, 19), (1.7, 19), (-1, 0),
     (float("nan"), 0), (float("inf"), 19)],
)  # fmt: skip
def test_confidence_bins(confidence: float, bin_: int) -> None:
    if confidence == float("inf"):
        confidence = 1e300
    assert confidence_bin(confidence) == bin_


def test_windows_count_classes_and_confidence_and_begin_anew(tmp_path: Path) -> None:
    telemetry = Telemetry()
    rows = np.array([[0, 0, 1, 1, 0.91, 0], [0, 0, 1, 1, 0.33, 1], [0, 0, 1, 1, 0.34, 1]])
    telemetry.frame(Detections(rows, ("circle", "square"), 5.0, True))
    window = telemetry.take(0)
    assert window.detections == {"circle": 1, "square": 2}
    assert sum(window.confidence) == 3
    assert (window.confidence[18], window.confidence[6]) == (1, 2)
    assert telemetry.take(0).confidence == (0,) * CONFIDENCE_BINS
