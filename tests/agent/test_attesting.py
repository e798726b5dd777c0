"""What a board says that it runs, as its server and its key have it."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from kedge_agent import identity
from kedge_agent.attesting import Attester
from kedge_agent.identity import Identity
from kedge_agent.journal import Journal
from kedge_agent.reporting import Reporter
from kedge_agent.sensors.sampler import Sampler
from kedge_agent.state import State
from kedge_shared import signing
from kedge_shared.attestation import RUNNING_TYPE, fetch_attestations, open_running
from kedge_shared.errors import StorageError, TrustError
from kedge_shared.phases import Phase
from kedge_shared.protocol import Report
from tests.agent.test_journal import report
from tests.agent.test_update import follow
from tests.shared import samples
from tests.sim.board import SimBoard
from tests.sim.runner import DISAGREE
from tests.sim.world import World


def test_a_board_attests_its_confirmations_and_what_it_went_back_to(
    running: World, board: SimBoard
) -> None:
    board.telemetry_seconds = 0.2
    board.install()
    board.runner.after = DISAGREE
    follow(running, board)
    newest, first = fetch_attestations(running.operator, "cam-1")
    assert [newest.refused, first.refused] == ["", ""]
    assert [newest.published, first.published] == [True, True]
    key = identity.device_key(board.folder / "state").public_key
    before, after = open_running(first.envelope, key).predicate, open_running(newest.envelope, key)
    assert (before.event, before.release, before.verdict.code) == ("confirmed", "1.0", "ok")
    assert before.health["frames"] >= 30
    said = after.predicate
    assert (said.event, said.release, said.verdict.code) == ("rolled_back", "1.0", "accuracy")
    assert said.deployment != before.deployment
    assert said.engine in after.digests
    assert said.counter > 0
    assert said.not_before > 1_700_000_000
    assert said.runtimes == {"onnxruntime": "1.32.0"}


class Server:
    def __init__(self) -> None:
        self.taken: list[dict[str, Any]] = []

    async def report(self, envelopes: list[dict[str, Any]]) -> None:
        self.taken += envelopes


def test_it_is_signed_with_the_key_that_counts_when_it_is_sent(board: SimBoard) -> None:
    """A board whose key is rotated while its server is away signs with the new one."""
    journal = Journal(board.folder / "journal")
    attester = Attester(board.settings, samples.facts(), lambda _: samples.manifest())
    reporter = Reporter(board.settings, journal, journal.name, Sampler(board.folder), attester)
    waiting = report(1)
    journal.queue(Report(**{**vars(waiting), "attestation": {"_type": "x"}}))
    new, server = Identity(signing.generate(), "cam-1", "t"), Server()
    asyncio.run(reporter.send(server, new))  # type: ignore[arg-type]
    told = signing.peek(server.taken[0], Report)
    assert told.attestation is not None
    assert told.attestation["payloadType"] == RUNNING_TYPE
    assert told.attestation["signatures"][0]["keyid"] == new.signer.public_key.keyid


def test_a_manifest_that_the_disk_does_not_give_keeps_no_board_from_reporting(
    board: SimBoard,
) -> None:
    board.install()

    def gone(_: object) -> Any:
        raise StorageError("it is not there")

    attester = Attester(board.settings, samples.facts(), gone)
    confirmed = Report(**{**vars(report(1)), "phase": Phase.CONFIRMED})
    assert attester.added(board.state, confirmed) == confirmed
    assert attester.statement(State(), confirmed) is None, "a board without an engine runs nothing"


def test_a_report_is_no_attestation(board: SimBoard) -> None:
    signer = signing.generate()
    with pytest.raises(TrustError):
        open_running(signing.seal(report(1), "application/vnd.kedge.report+json", signer),
                     signer.public_key)  # fmt: skip
