"""People, boards and a look at once: whoever is slower changes nothing by halves."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from kedge_server.errors import ConflictError
from kedge_server.rollouts import progress, service
from kedge_shared.api import GateSpec, RolloutSpec, StageSpec
from kedge_shared.phases import Phase
from tests.server.both import database  # noqa: F401 - SQLite and PostgreSQL
from tests.sim.desk import HARM, Desk

GATE = GateSpec(soak_seconds=5, silence_seconds=500)


@pytest.fixture
def desk(tmp_path: Path, database: str) -> Iterator[Desk]:  # noqa: F811
    made = Desk(tmp_path, database)
    made.publish("1.0", 1)
    for each in range(5):
        made.enrol(f"cam-{each}")
    yield made
    made.engine.dispose()


def roll_out(desk: Desk, *percents: float, approval: bool = False, **spec: Any) -> str:
    stages = tuple(StageSpec(percent=each, gate=GATE, approval=approval) for each in percents)
    return desk.create(RolloutSpec(model="shapes", release="1.0", stages=stages, **spec), 0).id


def all_healthy(desk: Desk, rollout: str, now: float) -> None:
    for row in desk.deployments(rollout):
        if row.assigned is not None and row.phase != "confirmed":
            desk.say(row, Phase.CONFIRMED, now)


def reached(desk: Desk, rollout: str) -> int:
    return sum(each.assigned is not None for each in desk.deployments(rollout))


def between(monkeypatch: pytest.MonkeyPatch, home: Any, name: str, act: Callable[[], Any]) -> None:
    """Lets somebody act between what is read before the first call of a function and its use."""
    real, acted = getattr(home, name), []

    def acting(*given: Any) -> Any:
        found = real(*given)
        if not acted:
            acted.append(True)
            act()
        return found

    monkeypatch.setattr(home, name, acting)


def test_a_rollout_that_is_paused_within_a_look_stands_still_and_goes_on_when_resumed(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    rollout = roll_out(desk, 20, 100)
    all_healthy(desk, rollout, 1)
    between(monkeypatch, progress, "judge", lambda: desk.change(rollout, "pause", 9))
    desk.look(rollout, 10)
    assert [each.state for each in desk.stages(rollout)] == ["running", "waiting"]
    assert reached(desk, rollout) == 1
    desk.change(rollout, "resume", 11)
    desk.look(rollout, 12)
    assert [each.state for each in desk.stages(rollout)] == ["passed", "running"]


def test_a_gate_that_fails_while_somebody_pauses_halts(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    rollout = roll_out(desk, 20, 100)
    (canary,) = [each for each in desk.deployments(rollout) if each.assigned is not None]
    desk.say(canary, Phase.ROLLED_BACK, 3, HARM)
    between(monkeypatch, progress, "judge", lambda: desk.change(rollout, "pause", 9))
    desk.look(rollout, 10)
    desk.look(rollout, 11)
    assert desk.rollout(rollout).state == "halted"
    assert [each.state for each in desk.stages(rollout)] == ["failed", "waiting"]


def test_nobody_is_reached_once_a_pause_was_acknowledged(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    rollout = roll_out(desk, 100, blast_radius=1)
    all_healthy(desk, rollout, 1)
    between(monkeypatch, progress, "stages_of", lambda: desk.change(rollout, "pause", 9))
    desk.look(rollout, 10)
    assert desk.rollout(rollout).state == "paused"
    assert reached(desk, rollout) == 1


def test_a_yes_that_comes_with_a_pause_is_refused_and_counts_later(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    rollout = roll_out(desk, 20, 100, approval=True)
    all_healthy(desk, rollout, 1)
    desk.look(rollout, 10)
    between(monkeypatch, service.knowledge, "stages_of", lambda: desk.change(rollout, "pause", 11))
    with pytest.raises(ConflictError, match="is paused and asks for nothing"):
        desk.approve(rollout, 12)
    assert [each.state for each in desk.stages(rollout)] == ["asking", "waiting"]
    desk.change(rollout, "resume", 13)
    desk.approve(rollout, 14)
    assert [each.state for each in desk.stages(rollout)] == ["passed", "running"]


@pytest.mark.parametrize("ends", ["the last stage passes", "the deadline is over"])
def test_a_rollback_that_comes_while_the_rollout_ends_is_not_overlooked(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, ends: str
) -> None:
    rollout = roll_out(desk, 100, deadline_hours=1)
    all_healthy(desk, rollout, 1)
    harmed = desk.deployments(rollout)[0]
    late = ends.startswith("the deadline")
    between(
        monkeypatch, progress, "stages_of" if late else "judge",
        lambda: desk.say(harmed, Phase.ROLLED_BACK, 9, HARM),
    )  # fmt: skip
    desk.look(rollout, 4000 if late else 10)
    assert desk.rollout(rollout).state == "halted"
    assert "rollout late_failure" in desk.told(rollout)
