"""The fleet at a glance: who is behind is told by what each board was told, not by one release."""

from __future__ import annotations

import time
from dataclasses import asdict

import pytest

from kedge_server.accounts.principal import Reach
from kedge_server.console.fleet.overview import Overview, look
from kedge_server.database import transaction
from kedge_shared.phases import Phase
from tests.server.both import database  # noqa: F401
from tests.sim.device import HARM
from tests.sim.world import World


def glance(world: World, *scopes: str, later: float = 0.0) -> Overview:
    with transaction(world.context.engine) as session:
        return look(session, Reach.of(*scopes), 60, time.time() + later)


@pytest.mark.parametrize("scopes", [(), ("class==x86-onnxruntime",)])
def test_a_canary_is_ahead_and_who_refused_is_behind(
    running: World, scopes: tuple[str, ...]
) -> None:
    fleet = [running.enrol(f"cam-{each}") for each in range(4)]
    running.publish("1.0", 10)
    running.roll_out("1.0")
    for each in fleet * 2:
        each.live()
    running.tick()
    running.publish("1.1", 11)
    running.roll_out("1.1", 50, 100, max_failure_share=1.0)
    running.tick()
    for each in fleet:
        each.poll()
    told = [each for each in fleet if each.assignment and "/1.1/" in each.assignment.manifest.path]
    assert len(told) == 2
    told[0].live()
    told[1].send(told[1].report(Phase.PREFLIGHT))
    found = glance(running, *scopes)
    assert (found.behind, found.at_work, found.stragglers) == (0, 1, ())
    told[1].send(told[1].report(Phase.REFUSED, HARM))
    found = glance(running, *scopes)
    assert (found.devices, found.behind, found.at_work, found.silent) == (4, 1, 0, 0)
    assert [asdict(each)["why"] for each in found.stragglers] == ["runs 1.0, assigned 1.1: refused"]
    share = found.classes[0]
    assert (share.releases, set(share.assigned)) == ((("1.0", 3), ("1.1", 1)), {"1.0", "1.1"})


def test_who_was_not_heard_of_is_silent(running: World) -> None:
    running.enrol("cam-1").poll()
    assert glance(running).silent == 0
    found = glance(running, later=3600)
    assert (found.silent, found.classes[0].silent) == (1, 1)
    assert [each.why for each in found.stragglers] == ["silent"]
