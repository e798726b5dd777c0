"""Boards that are shut out while releases are rolled out: nobody waits for them."""

from __future__ import annotations

from kedge_shared.phases import Phase
from tests.server.both import database  # noqa: F401
from tests.sim.world import World


def test_a_revoked_board_is_in_no_rollout_and_holds_none_up(running: World) -> None:
    fleet = [running.enrol(f"cam-{each}") for each in range(4)]
    running.publish("1.0", 10)
    running.operator.revoke_device("cam-0")
    rollout = running.roll_out("1.0", silence_seconds=600)
    running.tick()
    assert {each.device for each in running.operator.rollout_deployments(rollout.id)} == {
        "cam-1", "cam-2", "cam-3"
    }  # fmt: skip
    for each in fleet[1:]:
        each.poll()
    fleet[2].live()
    fleet[3].live()
    # It was told, and its silence would stop the rollout.
    running.operator.revoke_device("cam-1")
    running.let_pass(601)
    for _ in range(3):
        running.tick()
    assert running.operator.rollout(rollout.id).state == "completed"
    left = next(
        each for each in running.operator.rollout_deployments(rollout.id) if each.device == "cam-1"
    )
    assert (left.phase, left.verdict.reason) == (Phase.REFUSED, "the board was revoked")


def test_a_board_of_a_later_stage_that_is_revoked_leaves_without_a_trace(running: World) -> None:
    fleet = [running.enrol(f"cam-{each}") for each in range(4)]
    running.publish("1.0", 10)
    rollout = running.roll_out("1.0", 25, 100)
    running.tick()
    for each in fleet:
        each.poll()
    waiting = next(each for each in fleet if each.assignment is None)
    running.operator.revoke_device(waiting.name)
    rest = [each for each in fleet if each is not waiting]
    for _ in range(4):
        for each in rest:
            each.live()
        running.tick()
    found = running.operator.rollout_deployments(rollout.id)
    assert {each.device for each in found} == {each.name for each in rest}
    assert running.operator.rollout(rollout.id).state == "completed"


def test_a_stage_whose_boards_are_all_gone_proves_nothing(running: World) -> None:
    fleet = [running.enrol(f"cam-{each}") for each in range(4)]
    running.publish("1.0", 10)
    rollout = running.roll_out("1.0", 25, 100)
    running.tick()
    for each in fleet:
        each.poll()
    told = next(each for each in fleet if each.assignment is not None)
    running.operator.revoke_device(told.name)
    running.tick()
    found = running.operator.rollout(rollout.id)
    assert (found.state, found.stages[0].state) == ("running", "running")
    assert found.stages[0].reason == "all 1 devices were taken out of it"
