"""``kill -9`` at random moments of an update: always back on a verified engine."""

from __future__ import annotations

import os
import random
import signal
import time
from contextlib import suppress
from pathlib import Path

import pytest

from tests.e2e.conftest import RealFleet, wait_until

NAME = "east"


def children(fleet: RealFleet) -> dict[str, int]:
    """Returns the pids of the board's own processes: supervisor, updater, runner, preflight."""
    supervisor = fleet.processes.pid(NAME)
    found = {"supervisor": supervisor}
    for task in Path("/proc").iterdir():
        if not task.name.isdigit():
            continue
        with suppress(OSError, IndexError):
            stat = (task / "stat").read_text().rsplit(")", 1)[1].split()
            words = (task / "cmdline").read_bytes().decode().split("\0")
            if int(stat[3]) == supervisor:  # its session
                for module in ("runner", "updater", "preflight"):
                    if f"kedge_agent.{module}" in words:
                        found[module] = int(task.name)
    return found


def kill(fleet: RealFleet, *names: str) -> None:
    found = children(fleet)
    for name in names:
        if name in found:
            with suppress(ProcessLookupError):
                os.kill(found[name], signal.SIGKILL)


VICTIMS = [("updater",), ("runner",), ("updater", "runner"), ("preflight",), ("supervisor",)]


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_kill_9_at_random_moments(fleet: RealFleet, releases: dict[str, Path], video: Path) -> None:
    rng = random.Random(20)
    fleet.start_board(NAME, "x86-onnxruntime", video)
    fleet.publish(releases["1.0"])
    assert fleet.finished(fleet.roll_out("1.0")).state == "completed"
    fleet.publish(releases["1.1"])
    engines = {fleet.status(NAME).engine}
    for victims in VICTIMS:
        rollout = fleet.roll_out("1.1")
        time.sleep(rng.uniform(0.2, 7))
        kill(fleet, *victims)
        if "supervisor" in victims:
            wait_until(lambda: set(children(fleet)) == {"supervisor"}, 10)
            fleet.start_agent(NAME)
        wait_until(lambda: fleet.status(NAME).running, 30)
        settled(fleet, rollout)
        status = fleet.status(NAME)
        assert status.engine, fleet.log(NAME)
        engines.add(status.engine)
        before = len(fleet.frames(NAME))
        wait_until(lambda n=before: len(fleet.frames(NAME)) > n + 6, 30)
        assert fleet.frames(NAME)[-1].release == status.release
        if fleet.client.rollout(rollout).state != "halted":
            fleet.client.change_rollout(rollout, "halt")
        wait_until(lambda: fleet.status(NAME).release == "1.0", 60)
        settled(fleet, rollout)
    assert len(engines) <= 2, "nothing but the two signed engines ever served"


def settled(fleet: RealFleet, rollout: str) -> None:
    """Waits until the board has come to rest, wherever that is."""
    final = {"confirmed", "refused", "rolled_back"}

    def rests() -> bool:
        deployments = fleet.client.rollout_deployments(rollout)
        status = fleet.status(NAME)
        return status.phase in final and all(each.phase.value in final for each in deployments)

    wait_until(rests, 90)
