"""A release that is taken back: boards that run it move to the one that the policy names."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from kedge_builder.publishing import durable
from kedge_builder.publishing.keyring import Keyring
from kedge_builder.publishing.publish import gather, publish
from kedge_server.database import transaction
from kedge_server.rollouts import progress
from kedge_shared import wire
from kedge_shared.errors import InputError, StorageError
from kedge_shared.policy import read_policy
from tests.server.fleet_keys import MANIFEST, kedge
from tests.shared import samples
from tests.sim.board import SimBoard, settled
from tests.sim.device import SimDevice
from tests.sim.world import World, write_build


def with_releases(
    world: World, *names: str, fallback: str | None = None, more: Sequence[SimDevice] = ()
) -> SimDevice:
    """Rolls releases out one after the other, to a board (and more) that takes each."""
    device = world.enrol("cam-a")
    for counter, name in enumerate(names, 10):
        policy = replace(samples.policy(), fallback=fallback)
        world.publish(name, counter, policy=policy)
        world.roll_out(name)
        for each in (device, *more):
            each.live()
        world.tick()
    return device


def test_boards_move_to_the_release_that_the_policy_names(running: World) -> None:
    device = with_releases(running, "1.0", "1.1", "1.2", fallback="1.0")
    assert device.runs == MANIFEST.format("1.2")
    said = json.loads(kedge(running, "yank", "shapes", "1.2", "--json"))
    assert said == {"model": "shapes", "release": "1.2", "fallback": "1.0"}
    device.live()
    assert device.runs == MANIFEST.format("1.0"), "not 1.1, the newest that stands"
    assert device.assignment is not None
    assert device.assignment.intent == "revert"
    newest = running.operator.rollouts()[0]
    assert (newest.release, newest.recall) == ("1.0", True)
    assert "rollout" in running.operator.http.get("/api/v1/audit").text


def test_the_policy_is_told_at_the_yank_and_signed_with_it(running: World) -> None:
    device = with_releases(running, "1.0", "1.1", "1.2")
    kedge(running, "yank", "shapes", "1.2", "--fallback", "1.0")
    device.live()
    assert device.runs == MANIFEST.format("1.0")
    listed = running.publisher("fresh").standing().targets.signed.targets
    digest = listed["models/shapes/policy.json"].hashes["sha256"]
    policy = read_policy(running.operator.read(f"/api/v1/artifacts/{digest}", 10**6))
    assert (policy.fallback, policy.version) == ("1.0", samples.policy().version + 1)


@pytest.mark.parametrize("to", ["1.1", "9.9"])
def test_nobody_falls_back_to_what_does_not_stand(running: World, to: str) -> None:
    with_releases(running, "1.0", "1.1")
    with pytest.raises(InputError, match="cannot be fallen back to"):
        kedge(running, "yank", "shapes", "1.1", "--fallback", to)
    assert not running.operator.release("shapes", "1.1").taken_back


def test_boards_that_run_something_else_are_left_alone(running: World) -> None:
    device = with_releases(running, "1.0", "1.1", "1.2", fallback="1.0")
    kedge(running, "yank", "shapes", "1.1")
    device.live()
    assert device.runs == MANIFEST.format("1.2")
    assert len(running.operator.rollouts()) == 3


def test_a_publication_later_moves_nobody_again(running: World) -> None:
    """A board that was away keeps what it was told once; no later publication begins anew."""
    away = running.enrol("cam-b")
    device = with_releases(running, "1.0", "1.1", fallback="1.0", more=[away])
    kedge(running, "yank", "shapes", "1.1")
    device.live()
    over(running)
    before = running.operator.rollouts()
    assert before[0].state == "completed"
    running.publish("1.3", 13, policy=replace(samples.policy(), fallback="1.0"))
    assert len(running.operator.rollouts()) == len(before)
    away.live()
    assert away.runs == MANIFEST.format("1.0")


def over(world: World) -> None:
    """Lets so much time pass that whoever has not spoken is silent."""
    with transaction(world.context.engine) as session:
        for each in progress.open_rollouts(session):
            progress.look(session, each, 4e9)
    world.context.index.forget_all()


def test_silent_boards_do_not_take_the_others_back(running: World) -> None:
    """A fallback that was halted for the silence of some would bring the rest somewhere else."""
    silent = running.enrol("cam-b")
    device = with_releases(running, "1.0", "1.1", "1.2", fallback="1.0", more=[silent])
    assert silent.runs == MANIFEST.format("1.2")
    kedge(running, "yank", "shapes", "1.2")
    device.live()
    over(running)
    assert running.operator.rollouts()[0].state != "halted"
    device.live()
    assert device.runs == MANIFEST.format("1.0")


def test_a_real_board_verifies_and_follows(
    running: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    board = SimBoard(running, tmp_path / "board", monkeypatch)
    policy = replace(samples.policy(), fallback="1.0")
    board.run(lambda _: (board.folder / "state" / "identity.json").is_file())
    for counter, name in enumerate(("1.0", "1.1", "1.2"), 10):
        running.publish(name, counter, policy=policy)
        running.roll_out(name)
        state = board.run(
            lambda s, name=name: settled(s) and s.active is not None and s.active.release == name
        )
        running.tick()
    kedge(running, "yank", "shapes", "1.2")
    state = board.run(lambda s: settled(s) and s.active is not None and s.active.release == "1.0")
    assert state.deployment is not None
    assert state.deployment.intent == "revert"


def test_an_older_agent_reads_a_policy_with_a_fallback() -> None:
    """Unknown fields are ignored; and a policy without one is as before."""
    body = json.loads(wire.encode(samples.policy()))
    assert body.pop("fallback") is None
    assert read_policy(json.dumps(body).encode()) == samples.policy()
    assert read_policy(json.dumps({**body, "later": 1}).encode()) == samples.policy()


def test_what_a_publisher_trusts_survives_a_power_cut(
    running: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is renamed into place before its bytes are on the disk, and then the folder is."""
    running.publish("1.0", 10)
    done: list[tuple[str, str]] = []
    fsync, replace_ = durable.os.fsync, Path.replace

    def synced(fd: int) -> None:
        done.append(("sync", Path(f"/proc/self/fd/{fd}").readlink().name))
        fsync(fd)

    def renamed(self: Path, target: Path) -> Path:
        done.append(("rename", self.name))
        return replace_(self, target)

    monkeypatch.setattr(durable.os, "fsync", synced)
    monkeypatch.setattr(Path, "replace", renamed)
    fresh = running.publisher("another")
    fresh.standing()
    renames = [at for at, (what, _) in enumerate(done) if what == "rename"]
    wanted = {f".{name}.json.new" for name in ("1.root", "timestamp", "snapshot", "targets")}
    assert {done[at][1] for at in renames} >= wanted
    for at in renames:
        assert done[at - 1] == ("sync", done[at][1])
        assert done[at + 1][0] == "sync"
        assert not done[at + 1][1].endswith(".json.new")
    assert not list(fresh.folder.glob(".*")), "nothing is left behind"


def test_a_full_disk_leaves_what_was_trusted(
    running: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    running.publish("1.0", 10)
    known = running.publisher()
    before = {each.name: each.read_bytes() for each in known.folder.glob("*.json")}

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    # Somebody else publishes: there is news that would be written.
    write_build(running.home / "b", "1.1", 11)
    other = running.publisher("other")
    publish(
        gather([running.home / "b"]), running.operator, other,
        Keyring.load(running.trust.offline), lambda *_: None, running.home / "scratch",
    )  # fmt: skip
    monkeypatch.setattr(durable.os, "fsync", full)
    with pytest.raises(StorageError, match="cannot be written"):
        known.standing()
    after = {each.name: each.read_bytes() for each in known.folder.glob("*.json")}
    assert after == before
