"""What a person at the board may ask of the running updater, and what comes of it."""

from __future__ import annotations

import asyncio
import stat
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest
from typer.testing import CliRunner

from kedge_agent.commands import client
from kedge_agent.commands.desk import Desk
from kedge_agent.commands.protocol import SOCKET, Accepted, Declined, GoBack, InstallBundle
from kedge_agent.commands.rollback import check_floor, ended, gone_back
from kedge_agent.journal import Journal
from kedge_agent.local_protocol import Slot
from kedge_agent.state import Deployment, State
from kedge_shared.errors import InputError, ServiceError
from kedge_shared.phases import Phase
from kedge_shared.protocol import ManifestRef
from tests.shared import samples
from tests.sim.board import SimBoard, settled
from tests.sim.engine import slot_of
from tests.sim.world import World
from tests.waiting import PATIENCE

REF = ManifestRef(path="models/m/1/c/manifest.json", sha256="a" * 64, length=10)
OLD, NEW = slot_of("old"), slot_of("new")


def state(phase: Phase | None, *, slot: Slot | None = NEW, active: Slot = NEW) -> State:
    deployment = phase and Deployment(
        id="de", rollout="ro", intent="install", manifest=REF, counter=1, phase=phase, slot=slot
    )
    return State(active=active, previous=OLD, deployment=deployment)


BEFORE = [Phase.IDLE, Phase.DOWNLOADING, Phase.VERIFYING, Phase.PREFLIGHT, Phase.SHADOW,
          Phase.ARMED]  # fmt: skip


@pytest.mark.parametrize("phase", BEFORE)
def test_an_update_far_from_the_loop_is_ended_and_the_engine_stays(phase: Phase) -> None:
    found = ended(state(phase, active=OLD), "wrong line")
    assert found is not None
    assert found.active == OLD
    assert found.quarantine == {}
    assert found.deployment is not None
    assert found.deployment.phase is Phase.REFUSED
    verdict = found.deployment.verdict
    assert (verdict.code, verdict.cause, verdict.stopped_in) == ("operator", "harm", phase)
    assert "wrong line" in verdict.reason


@pytest.mark.parametrize(
    ("phase", "slot", "active", "id_"),
    [
        (Phase.CONFIRMED, NEW, NEW, "de"),  # the server's own deployment is reopened
        (Phase.PROBATION, NEW, NEW, "de"),
        (Phase.SWAPPING, NEW, OLD, "de"),
        (Phase.REFUSED, slot_of("other"), NEW, "fresh"),  # another brought the engine
        (Phase.ROLLED_BACK, slot_of("other"), NEW, "fresh"),
        (Phase.CONFIRMED, slot_of("other"), NEW, "fresh"),
        (None, NEW, NEW, "fresh"),
    ],
)
def test_which_deployment_goes_back(
    phase: Phase | None, slot: Slot, active: Slot, id_: str
) -> None:
    before = state(phase, slot=slot, active=active)
    assert ended(before, "") is None
    found = gone_back(before, "smoke", "fresh", REF)
    assert found.deployment is not None
    assert (found.deployment.id, found.deployment.phase) == (id_, Phase.ROLLING_BACK)
    assert found.deployment.slot == NEW
    assert list(found.quarantine) == [NEW.engine]
    assert (found.active, found.previous) == (active, OLD), "the table drives it, as ever"


@pytest.mark.parametrize(
    "before",
    [
        State(),
        State(active=NEW),
        msgspec.structs.replace(state(Phase.CONFIRMED), previous=None),
        state(Phase.ROLLING_BACK),
    ],
)
def test_nothing_to_go_back_to(before: State) -> None:
    with pytest.raises(InputError):
        gone_back(before, "", "fresh", REF)


def test_the_owners_floor_holds_by_hand_too() -> None:
    policy = replace(samples.policy(), min_release_counter=11)
    check_floor(replace(samples.manifest(), release_counter=11), policy)
    with pytest.raises(InputError, match="older than the model policy"):
        check_floor(replace(samples.manifest(), release_counter=10), policy)


def serves(board: SimBoard) -> str:
    assert board.runner.active is not None
    assert board.state.active is not None
    assert board.runner.active.release == board.state.active.release
    return board.state.active.release


def two_releases(world: World, board: SimBoard) -> None:
    board.install()
    world.publish("1.1", 11)
    world.roll_out("1.1")
    board.run(lambda s: settled(s) and s.active is not None and s.active.release == "1.1")
    world.tick()


@pytest.mark.parametrize("offline", [True, False])
def test_a_confirmed_engine_is_taken_back_by_hand(
    running: World, board: SimBoard, offline: bool
) -> None:
    two_releases(running, board)
    assert running.operator.rollouts()[0].state == "completed"
    assert isinstance(board.command(GoBack("sees ghosts"), offline=offline), Accepted)
    assert serves(board) == "1.0"
    board.rest()
    assert serves(board) == "1.0", "the assignment that stands does not bring it again"
    told = running.operator.device_deployments("cam-1")
    row = next(each for each in told if each.release == "1.1")
    assert (row.phase, row.verdict.code) == (Phase.ROLLED_BACK, "operator")
    assert "sees ghosts" in row.verdict.reason
    running.tick()
    assert running.operator.rollouts()[0].state == "halted", "the gate is open again"


def test_a_probation_is_ended_by_hand(running: World, board: SimBoard) -> None:
    board.install()
    running.publish("1.1", 11)
    running.roll_out("1.1")
    board.patience, board.watched_seconds = 900, 800
    board.run(lambda s: s.deployment is not None and s.deployment.phase is Phase.PROBATION)
    started = time.monotonic()
    assert isinstance(board.command(GoBack("too hot")), Accepted)
    assert time.monotonic() - started < PATIENCE, "nobody waits for the end of the probation"
    assert serves(board) == "1.0"
    assert board.state.quarantine


def test_going_back_to_what_the_disk_lost_changes_nothing(running: World, board: SimBoard) -> None:
    two_releases(running, board)
    assert board.state.previous is not None
    (board.folder / "state" / "blobs" / board.state.previous.engine).write_bytes(b"rotten")
    answer = board.command(GoBack(""), offline=True)
    assert isinstance(answer, Declined)
    assert (answer.exit_status, "altered" in answer.what) == (5, True)
    assert serves(board) == "1.1"
    assert board.state.quarantine == {}


def test_a_board_with_one_engine_has_nothing_to_go_back_to(running: World, board: SimBoard) -> None:
    board.install()
    answer = board.command(GoBack(""))
    assert isinstance(answer, Declined)
    assert (answer.exit_status, serves(board)) == (2, "1.0")


def test_a_stick_does_not_interrupt_an_update_near_the_loop(
    running: World, board: SimBoard
) -> None:
    board.install()
    running.publish("1.1", 11)
    running.roll_out("1.1")
    board.patience, board.watched_seconds = 900, 800
    board.run(lambda s: s.deployment is not None and s.deployment.phase is Phase.PROBATION)
    answer = board.command(InstallBundle("/none"))
    assert isinstance(answer, Declined)
    assert "an update stands in probation" in answer.what


def test_a_stick_that_is_none_is_the_answer(running: World, board: SimBoard) -> None:
    board.install()
    answer = board.command(InstallBundle(str(board.folder / "none")))
    assert isinstance(answer, Declined)
    assert (answer.exit_status, "cannot be read" in answer.what) == (2, True)


def test_the_socket_is_this_users_and_takes_no_nonsense(running: World, board: SimBoard) -> None:
    board.install()
    socket = board.folder / "state" / SOCKET

    async def nonsense() -> list[bytes]:
        answers = []
        async with board._running():
            while not socket.exists():
                await asyncio.sleep(0.02)
            assert stat.S_IMODE(socket.stat().st_mode) == 0o600
            for line in (b"hello\n", b'{"type":"sudo"}\n', b'{"type":"go_back"}\n', b"\xff\n"):
                reader, writer = await asyncio.open_unix_connection(str(socket))
                writer.write(line)
                answers.append(await reader.readline())
                writer.close()
            reader, writer = await asyncio.open_unix_connection(str(socket))
            writer.write(b"x" * 200_000)
            answers.append(await reader.read())
            writer.close()
        return answers

    socket.unlink()
    answers = asyncio.run(nonsense())
    assert all(b"not understood" in each for each in answers[:4])
    assert answers[4] == b""
    assert serves(board) == "1.0"


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "_STARTING_SECONDS", 0.0)


def test_an_agent_that_is_just_starting_is_waited_for(tmp_path: Path) -> None:
    async def scenario() -> object:
        asked = asyncio.ensure_future(client._exchange(tmp_path / SOCKET, GoBack("")))
        await asyncio.sleep(0.5)
        desk = Desk(lambda _: Declined(6, "here now"))
        server = await desk.serve(tmp_path / SOCKET)
        answer = await asked
        server.close()
        return answer

    assert asyncio.run(scenario()) == Declined(6, "here now")


@pytest.mark.usefixtures("impatient")
def test_without_an_agent_it_says_so(tmp_path: Path) -> None:
    with pytest.raises(ServiceError, match="does not answer"):
        client.ask(tmp_path, GoBack(""))


def test_following_ends_when_another_takes_over(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.save(state(Phase.DOWNLOADING))
    seen: list[Any] = []

    def told(found: Deployment) -> None:
        seen.append(found.phase)
        deployment = journal.state.deployment
        assert deployment is not None
        if found.phase is Phase.DOWNLOADING:
            following = msgspec.structs.replace(deployment, phase=Phase.VERIFYING)
        else:
            following = msgspec.structs.replace(deployment, id="other")
        journal.save(msgspec.structs.replace(journal.state, deployment=following))

    assert client.follow(tmp_path, "de", told).phase is Phase.VERIFYING
    assert seen == [Phase.DOWNLOADING, Phase.VERIFYING]
    with pytest.raises(ServiceError, match="not in the journal"):
        client.follow(tmp_path, "never", told)
    journal.close()


@pytest.mark.usefixtures("impatient")
def test_the_command_line(running: World, board: SimBoard, tmp_path: Path) -> None:
    import yaml

    from kedge_agent.cli import app
    from tests.agent.test_settings import BASE

    config = tmp_path / "agent.yaml"
    config.write_text(yaml.safe_dump({**BASE, "state_dir": str(tmp_path / "none")}))
    ran = CliRunner().invoke(app, ["rollback", "--config", str(config)])
    assert isinstance(ran.exception, ServiceError)
    assert ran.exception.exit_code == 6
