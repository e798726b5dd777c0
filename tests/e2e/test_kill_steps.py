"""``kill -9`` at every persisted step: always back on a verified engine."""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from benchmarks.chaos_board import Record, Whole, examine
from kedge_agent.journal import open_read_only
from kedge_agent.slots import read_slots
from kedge_agent.state import State
from kedge_server.devices import keys
from kedge_server.throttle import Rate
from kedge_shared import api
from kedge_shared.ids import sha256_hex
from kedge_shared.phases import TERMINAL, Phase
from tests.sim.life import Life, Saved, live
from tests.sim.traffic import Traffic
from tests.sim.world import World, world
from tests.waiting import PATIENCE

#: Commits of the journal and renames of an update, at the least.
STEPS = 25
RELEASES = {"1.0": 10, "1.1": 11}


class Steps:
    """One board that ends by SIGKILL at a step, and lives again."""

    def __init__(self, home: Path, world: World, traffic: Traffic) -> None:
        self._world, self.record, self.rollout = world, Record("steps", 0), ""
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload(["tests.sim.life"])
        self._whole = Whole(traffic)
        self._life = Life(home, world.url, world.trust.root, "cam-1",
                          world.operator.enrolment_tokens(api.TokenRequest())[0].token,
                          kill=True)  # fmt: skip

    def live(self, step: int | None) -> bool:
        """Lives until it rests; says whether it was killed at the step before."""
        slots = read_slots(self._life.state_dir)
        life = replace(self._life, step=step, active=slots.active,
                       previous=slots.previous if slots.probation else None)  # fmt: skip
        ours, theirs = self._context.Pipe(duplex=False)
        process = self._context.Process(target=live, args=(life, theirs))
        process.start()
        theirs.close()
        rests = False
        with ours, suppress(EOFError):
            while not rests:
                assert ours.poll(PATIENCE), "the board does nothing any more"
                said = msgspec.json.decode(ours.recv_bytes(), type=Saved)
                rests = said.what == "steps" and self._rests()
            process.kill()
        process.join(PATIENCE)
        assert process.exitcode == -signal.SIGKILL
        return not rests

    def check(self) -> State:
        state_dir = self._life.state_dir
        self.record.again += self._whole.settle(state_dir)
        return examine(state_dir, SIGNED, self.record)

    def roll_out(self, release: str) -> None:
        gate = api.GateSpec(soak_seconds=0, max_failure_share=1.0)
        spec = api.RolloutSpec(model="shapes", release=release, recall=True,
                               stages=(api.StageSpec(percent=100, gate=gate),))  # fmt: skip
        self.rollout = self._world.operator.create_rollout(spec).id

    def _rests(self) -> bool:
        """The newest deployment has ended, and the server knows."""
        client = self._world.operator
        if not self.rollout:
            if client.devices():
                self.roll_out("1.0")
            return False
        state = open_read_only(self._life.state_dir)
        if state is None or state.deployment is None or state.deployment.phase not in TERMINAL:
            return False
        self._world.tick()
        (row,) = client.rollout_deployments(self.rollout)
        if row.phase in TERMINAL - {Phase.CONFIRMED}:
            client.change_rollout(self.rollout, "stop")
        return row.phase in TERMINAL and client.rollout(self.rollout).state != "running"


SIGNED = {
    sha256_hex(f"engine {release} for x86-onnxruntime".encode() * 1000) for release in RELEASES
}


@pytest.fixture
def steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Steps]:
    # Sixty starts in a minute; a board of the fleet that did that would have to wait for access.
    monkeypatch.setattr(keys, "_ASKING", Rate(1000, 1.0))
    traffic = Traffic()
    with world(tmp_path / "world", traffic.around) as found:
        for release, counter in RELEASES.items():
            found.publish(release, counter)
        (tmp_path / "board").mkdir()
        yield Steps(tmp_path / "board", found, traffic)


def test_kill_9_at_every_persisted_step(steps: Steps) -> None:
    steps.live(None)
    assert steps.check().active is not None
    undone, step, killed = 0, 0, True
    while killed:
        before = steps.check().active
        release = "1.1" if before is not None and before.release == "1.0" else "1.0"
        steps.roll_out(release)
        killed = steps.live(step)
        found = steps.check()
        assert found.active is not None
        steps.live(None)
        state = steps.check()
        assert state.deployment is not None
        assert state.active is not None
        if state.deployment.phase is Phase.CONFIRMED:
            assert state.active.release == release
        else:
            assert (state.deployment.phase, state.active) == (Phase.ROLLED_BACK, before)
            assert state.deployment.verdict.cause == "environment"
            undone += 1
        assert (steps.record.found, steps.record.again) == ({}, 0)
        step += 1
    assert step > STEPS, "an update has as many steps"
    assert undone <= 3, "only a swap that was not finished is undone"
