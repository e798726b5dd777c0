"""A whole update of a board that builds its plan: real updater, server and build process."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from kedge_agent import board as boards
from kedge_agent import facts, update
from kedge_agent.building.step import Building
from kedge_agent.network.window import Opening, WindowSettings
from kedge_agent.patience import BuildingSettings
from kedge_agent.state import State
from kedge_shared.device_classes import RuntimeRange
from kedge_shared.errors import ServiceError
from kedge_shared.manifest import Requires
from kedge_shared.phases import TERMINAL, Phase
from kedge_shared.plans import OnDevice
from tests.agent.test_building import command
from tests.shared import samples
from tests.sim.board import SimBoard, settled
from tests.sim.plans import NETWORK, ONNX, VERSION
from tests.sim.world import World

WANTS: dict[str, Any] = {
    "runtime": RuntimeRange(name="tensorrt", range=">=10"), "requires": Requires(),
}  # fmt: skip


@pytest.fixture
def builds(board: SimBoard, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Makes the board a Jetson; returns the runtimes that something was built for."""
    made: list[str] = []

    def gather(*_: Any, **__: Any) -> Any:
        return replace(
            samples.facts(), runtimes={"tensorrt": VERSION}, sm=87, soc="tegra234",
            libraries={"cuda": "12.6"}, ways=("plans", "build", "fallback"),
        )  # fmt: skip

    def maker(runtime: str) -> tuple[str, ...]:
        made.append(runtime)
        return command()

    monkeypatch.setattr(facts, "gather", gather)
    monkeypatch.setattr(update, "Building", partial(Building, command=maker))
    return made


def roll_out(
    world: World, board: SimBoard, release: str, counter: int, engine: bytes, **more: Any
) -> State:
    board.run(lambda _: (board.folder / "state" / "identity.json").is_file())
    world.publish(release, counter, engine=engine, **(WANTS | more))
    rollout = world.roll_out(release).id

    def known(state: State) -> bool:
        """It has ended, and the server has heard of it."""
        rows = world.operator.rollout_deployments(rollout) if settled(state) else ()
        return any(each.phase in TERMINAL for each in rows)

    state = board.run(known)
    world.tick()
    return state


def test_it_is_built_tried_served_and_not_built_again(
    running: World, board: SimBoard, builds: list[str]
) -> None:
    state = roll_out(running, board, "1.0", 10, ONNX)
    assert state.active is not None
    first = state.active.form
    assert first is not None
    assert first.seal is not None
    assert builds == ["tensorrt"]
    assert board.preflights[-1].candidate.form == first, "it was tried as any candidate is"
    assert board.preflights[-1].sealer is not None
    assert board.runner.active is not None
    assert board.runner.active.form == first
    kept = {each.name for each in (board.folder / "state" / "blobs").iterdir()}
    assert {first.file, first.seal} <= kept
    state = roll_out(running, board, "1.1", 11, ONNX)
    assert state.active is not None
    assert (state.active.release, state.active.form) == ("1.1", first)
    assert builds == ["tensorrt"]


def builds_longer_than_windows_are(board: SimBoard, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Makes builds take ten minutes, and the window close as soon as one has begun.

    Returns:
        Where the number of the build's process is written; without it the window is open.
    """
    board.maintenance = WindowSettings(begins="03:00", ends="03:00")
    number = board.folder / "pid"
    script = f"import os, time; open({str(number)!r}, 'w').write(str(os.getpid())); time.sleep(600)"
    slow = partial(Building, command=lambda _: (sys.executable, "-c", script))
    monkeypatch.setattr(update, "Building", slow)
    real = boards.window_open

    def closes(*arguments: Any) -> Opening:
        late = number.exists() and bool(number.read_text())
        return Opening(False, None, "waits for the window") if late else real(*arguments)

    monkeypatch.setattr(boards, "window_open", closes)
    return number


def test_a_window_that_closes_ends_the_build_and_the_next_one_begins_it_anew(
    running: World, board: SimBoard, builds: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    roll_out(running, board, "1.0", 10, ONNX)
    real, quick = boards.window_open, update.Building
    number = builds_longer_than_windows_are(board, monkeypatch)
    running.publish("1.1", 11, engine=ONNX + b" ", **WANTS)
    rollout = running.roll_out("1.1").id
    tried = len(board.preflights)
    state = board.run(lambda s: s.deployment is not None and "anew" in s.deployment.verdict.reason)
    with pytest.raises(ProcessLookupError):
        os.kill(int(number.read_text()), 0)
    state = board.rest()  # polls meanwhile, and the reason stays
    assert state.deployment is not None
    assert state.deployment.phase is Phase.VERIFYING
    (told,) = running.operator.rollout_deployments(rollout)
    assert told.phase is Phase.VERIFYING
    assert told.verdict.reason.startswith("the build of the plan was ended after ")
    assert told.verdict.reason.endswith(" s and begins anew: waits for the window")
    assert len(board.preflights) == tried, "nothing was tried"
    assert state.quarantine == {}, "and nobody is to blame"
    assert state.active is not None
    assert state.active.release == "1.0"

    monkeypatch.setattr(boards, "window_open", real)
    monkeypatch.setattr(update, "Building", quick)
    state = board.run(lambda s: s.active is not None and s.active.release == "1.1" and settled(s))
    assert builds == ["tensorrt", "tensorrt"]


def test_a_build_that_no_window_is_long_enough_for_is_given_up(
    running: World, board: SimBoard, builds: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    roll_out(running, board, "1.0", 10, ONNX)
    number = builds_longer_than_windows_are(board, monkeypatch)
    board.building = BuildingSettings(windows=2)
    running.publish("1.1", 11, engine=ONNX + b" ", **WANTS)
    rollout = running.roll_out("1.1").id
    board.run(lambda s: s.deployment is not None and "anew" in s.deployment.verdict.reason)
    number.unlink()  # the next window

    def refused(state: State) -> bool:
        rows = running.operator.rollout_deployments(rollout) if settled(state) else ()
        return any(each.phase is Phase.REFUSED for each in rows)

    state = board.run(refused)
    (told,) = running.operator.rollout_deployments(rollout)
    assert (told.verdict.code, told.verdict.cause) == ("misfit", "environment")
    assert told.verdict.reason.startswith("2 windows ended the build of the plan, the longest ")
    assert told.verdict.reason.endswith("longer, or publish a plan for this board")
    assert state.quarantine == {}, "another window may be longer"
    assert board.runner.active is not None
    assert board.runner.active.release == "1.0"


def test_a_nano_builds_fp16_of_a_float_onnx_and_is_sent_no_int8(
    running: World, board: SimBoard, builds: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    nano = replace(
        facts.gather(), runtimes={"tensorrt": "8.2.1.9"}, sm=53, soc="tegra210",
        libraries={"cuda": "10.2"},
    )  # fmt: skip
    monkeypatch.setattr(facts, "gather", lambda *_, **__: nano)
    maker = partial(Building, command=lambda _: command("8.2.1.9"))
    monkeypatch.setattr(update, "Building", maker)
    old = {"runtime": RuntimeRange(name="tensorrt", range=">=8.2,<8.3")}
    state = roll_out(running, board, "1.0", 10, ONNX, on_device=OnDevice(int8=False), **old)
    assert state.active is not None
    assert state.active.form is not None
    plan = board.folder / "state" / "blobs" / state.active.form.file
    assert json.loads(plan.read_bytes()[64:])["built"]["flags"] == [
        "FP16", "OBEY_PRECISION_CONSTRAINTS",
    ]  # fmt: skip
    with pytest.raises(ServiceError, match="SM 53 has no INT8 arithmetic"):
        roll_out(running, board, "1.1", 11, ONNX, **old)


def test_a_model_that_tensorrt_does_not_take_is_refused_before_any_trial(
    running: World, board: SimBoard, builds: list[str]
) -> None:
    bad = json.dumps(NETWORK | {"bad": "operator"}).encode()
    state = roll_out(running, board, "1.0", 10, bad)
    assert state.deployment is not None
    assert state.deployment.phase is Phase.REFUSED
    assert (state.deployment.verdict.code, state.deployment.verdict.cause) == ("misfit", "harm")
    assert "Frobnicate" in state.deployment.verdict.reason
    assert board.preflights == []
    assert board.runner.asked == []


def test_a_board_that_cannot_build_is_left_out_by_the_server_already(
    running: World, board: SimBoard, builds: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    had = facts.gather()
    monkeypatch.setattr(facts, "gather", lambda *_, **__: replace(had, ways=()))
    with pytest.raises(ServiceError, match="cannot build plans on the board"):
        roll_out(running, board, "1.0", 10, ONNX)
    assert builds == []
