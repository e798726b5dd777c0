"""What ends in the midst of an update is the board's trouble, never the engine's."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest

from kedge_agent import identity, limits
from kedge_agent.journal import Journal
from kedge_agent.local_protocol import Failed, Swap
from kedge_agent.server_client import ServerClient
from kedge_agent.state import Deployment, State
from kedge_shared.errors import ServiceError, StorageError
from kedge_shared.phases import Phase
from tests.sim.board import SimBoard, settled
from tests.sim.traffic import Traffic
from tests.sim.world import World, world


def update(world: World, board: SimBoard, **options: object) -> Deployment:
    """Rolls 1.1 out; returns the deployment when it has settled."""
    world.publish("1.1", 11, **options)
    return rolled_out(world, board, "1.1")


def rolled_out(world: World, board: SimBoard, release: str) -> Deployment:
    rollout = world.roll_out(release)
    (mine,) = [each.id for each in world.operator.rollout_deployments(rollout.id)]
    state = board.run(lambda s: settled(s) and s.deployment is not None and s.deployment.id == mine)
    assert state.deployment is not None
    return state.deployment


def went_back(board: SimBoard, deployment: Deployment) -> None:
    """The engine it had serves, nobody is blamed, and it is said why."""
    assert deployment.phase is Phase.ROLLED_BACK
    assert (deployment.verdict.code, deployment.verdict.cause) == ("crash", "environment")
    assert "in the midst of the swap" in deployment.verdict.reason
    assert board.state.quarantine == {}
    assert board.runner.active is not None
    assert board.state.active is not None
    assert (board.runner.active.release, board.state.active.release) == ("1.0", "1.0")


def in_phase(board: SimBoard, phase: Phase) -> State:
    return board.run(lambda s: s.deployment is not None and s.deployment.phase is phase)


def rewritten(board: SimBoard, **changes: Any) -> None:
    journal = Journal(board.folder / "state")
    deployment = msgspec.structs.replace(journal.state.deployment, **changes.pop("deployment"))
    journal.save(msgspec.structs.replace(journal.state, deployment=deployment, **changes))
    journal.close()


def test_a_swap_that_was_not_finished_is_undone_and_explained(
    running: World, board: SimBoard
) -> None:
    board.install()
    running.publish("1.1", 11)
    running.roll_out("1.1")
    in_phase(board, Phase.PREFLIGHT)
    rewritten(board, deployment={"phase": Phase.SWAPPING})
    state = board.run()
    assert state.deployment is not None
    went_back(board, state.deployment)


def test_a_cut_between_the_journal_and_the_slots_blames_nobody(
    running: World, board: SimBoard
) -> None:
    """The runner starts by the older slots.json and serves the older engine."""
    board.install()
    running.publish("1.1", 11)
    running.roll_out("1.1")
    before = in_phase(board, Phase.PREFLIGHT)
    assert before.deployment is not None
    rewritten(
        board, deployment={"phase": Phase.PROBATION}, active=before.deployment.slot,
        previous=before.active,
    )  # fmt: skip
    state = board.run()
    assert state.deployment is not None
    went_back(board, state.deployment)


def test_a_disk_that_is_full_when_the_swap_is_to_be_saved_blames_nobody(
    running: World, board: SimBoard, monkeypatch: pytest.MonkeyPatch
) -> None:
    board.install()
    real, refused = Journal.save, list[Phase]()

    def full_after_the_swap(self: Journal, state: State, report: Any = None) -> None:
        phase = state.deployment.phase if state.deployment else None
        if phase is Phase.PROBATION and not refused:
            refused.append(phase)
            raise StorageError("journal cannot be written: database or disk is full")
        real(self, state, report)

    monkeypatch.setattr(Journal, "save", full_after_the_swap)
    deployment = update(running, board)
    assert refused
    went_back(board, deployment)
    assert board.runner.asked.count("Swap") == 2, "the first engine's, and this one's only once"


def test_a_release_of_the_same_engine_is_undone_to_the_one_before(
    running: World, board: SimBoard
) -> None:
    """Only how the engine is read has changed: its file is the same, its manifest is not."""
    engine = b"an engine that two releases read in two ways" * 100
    board.run(lambda _: (board.folder / "state" / "identity.json").is_file())
    running.publish("1.0", 10, engine=engine)
    rolled_out(running, board, "1.0")
    running.tick()
    board.runner.fails = {Swap: Failed("memory", "no room")}
    deployment = update(running, board, engine=engine)
    assert (deployment.phase, deployment.verdict.code) == (Phase.ROLLED_BACK, "memory")
    assert board.state.active is not None
    assert board.runner.active is not None
    assert (board.state.active.release, board.runner.active.release) == ("1.0", "1.0")


def test_nothing_that_is_here_whole_is_sent_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    traffic = Traffic()
    with world(tmp_path, traffic.around) as found:
        board = SimBoard(found, tmp_path / "board", monkeypatch)
        board.install()
        found.publish("1.1", 11)
        found.roll_out("1.1")
        in_phase(board, Phase.VERIFYING)
        rewritten(board, deployment={"phase": Phase.DOWNLOADING})
        sent = dict(traffic.sent)
        board.run(lambda s: settled(s) and s.active is not None and s.active.release == "1.1")
        assert traffic.sent == sent


def test_a_download_goes_on_at_the_start_before_any_poll(
    running: World, board: SimBoard, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The program that starts has no access token yet, and the metadata wants one."""
    board.install()
    running.publish("1.1", 11)
    running.roll_out("1.1")
    in_phase(board, Phase.PREFLIGHT)
    rewritten(board, deployment={"phase": Phase.DOWNLOADING})

    async def poll(*_: object) -> None:
        raise ServiceError("polls are not answered")

    monkeypatch.setattr(ServerClient, "poll", poll)
    state = board.run()
    assert state.active is not None
    assert state.active.release == "1.1"


def test_half_a_key_does_not_keep_a_board_from_starting(tmp_path: Path) -> None:
    """A cut while it was being written: the board is not enrolled yet, so another will do."""
    (tmp_path / ".device.key.new").write_bytes(b"-----BEGIN PRIV")
    made = identity.device_key(tmp_path)
    assert identity.device_key(tmp_path).public_key == made.public_key
    assert [each.name for each in tmp_path.iterdir()] == ["device.key"]


def test_a_key_has_its_name_only_when_it_is_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def power_goes(_: Any, path: Path) -> None:
        path.write_bytes(b"-----BEGIN PRIV")
        raise KeyboardInterrupt

    monkeypatch.setattr(identity.signing, "save_private_key", power_goes)
    with pytest.raises(KeyboardInterrupt):
        identity.device_key(tmp_path)
    monkeypatch.undo()
    identity.device_key(tmp_path)


@pytest.mark.parametrize(("parent", "status"), [("1", -signal.SIGKILL), (None, 0)])
def test_a_child_whose_parent_has_gone_before_does_not_live_on(
    parent: str | None, status: int
) -> None:
    code = "from kedge_agent import limits; limits.die_with_parent()"
    env = {**os.environ, limits.PARENT_ENV: parent or str(os.getpid())}
    assert subprocess.run([sys.executable, "-c", code], env=env, check=False).returncode == status
