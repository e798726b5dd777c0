"""Looks at rollouts: a large one takes a tenth of the leader's time, a small one is not put off."""

from __future__ import annotations

from kedge_server import scheduler
from kedge_server.rollouts.pace import Pace
from tests.sim.world import World


def test_what_takes_long_is_looked_at_seldom() -> None:
    now = [100.0]
    pace = Pace(lambda: now[0])
    assert pace.is_due("large")
    with pace.looking("large"):
        now[0] += 2.0
    assert pace.is_due("small")
    with pace.looking("small"):
        pass
    assert pace.is_due("small"), "what costs nothing is looked at every time"
    for passed, due in ((0.0, False), (17.9, False), (0.2, True)):
        now[0] += passed
        assert pace.is_due("large") is due


def test_what_ended_is_forgotten() -> None:
    now = [0.0]
    pace = Pace(lambda: now[0])
    with pace.looking("one"):
        now[0] += 1.0
    pace.forget_others({"two"})
    assert pace.is_due("one")


def test_a_rollout_that_is_not_due_waits(running: World) -> None:
    running.enrol("cam-1")
    running.publish("1.0", 10)
    rollout = running.roll_out("1.0")
    pace = running.context.pace
    pace._due[rollout.id] = float("inf")
    scheduler.tick(running.context)
    assert not seen(running, rollout.id)
    pace._due.clear()
    scheduler.tick(running.context)
    assert seen(running, rollout.id)


def seen(running: World, rollout: str) -> bool:
    """Says whether the rollout's first stage was looked at."""
    return bool(running.operator.rollout(rollout).stages[0].reason)
