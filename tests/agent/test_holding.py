"""What holds an update back on a sound board: its maintenance window, and the room on its disk."""

from __future__ import annotations

from datetime import datetime, timezone

import pytest

from kedge_agent import board as boards
from kedge_agent.network.window import Opening, WindowSettings
from kedge_agent.state import State
from kedge_shared.api import GateSpec, RolloutSpec, StageSpec
from kedge_shared.phases import Phase
from kedge_shared.windows import DAYS, Day, WindowSpec
from tests.agent.test_update import follow, serves, told
from tests.sim.board import SimBoard, settled
from tests.sim.world import World

CLOSED = {"begins": "03:00", "ends": "03:00", "days": ()}
OPEN = {"begins": "03:00", "ends": "03:00"}


def waiting_for_window(state: State) -> bool:
    return state.deployment is not None and "window" in state.deployment.verdict.reason


@pytest.mark.parametrize(
    ("holds", "phase"), [("swap", Phase.VERIFYING), ("download", Phase.DOWNLOADING)]
)
def test_a_closed_window_holds_the_swap_and_nothing_is_lost(
    running: World, board: SimBoard, holds: str, phase: Phase
) -> None:
    board.maintenance = WindowSettings(**CLOSED, holds=holds)  # type: ignore[arg-type]
    board.install()  # a board without any engine waits for no window
    running.publish("1.1", 11)
    running.roll_out("1.1")
    asked, tried = list(board.runner.asked), len(board.preflights)
    state = board.run(waiting_for_window)
    assert state.deployment is not None
    assert state.deployment.phase is phase
    board.rest()
    assert (board.runner.asked, len(board.preflights)) == (asked, tried)
    row = told(running)
    assert (row.phase, row.verdict.reason) == (phase, "the maintenance window names no day")
    assert serves(board) == "1.0"
    board.maintenance = WindowSettings(**OPEN)  # type: ignore[arg-type]
    board.run(lambda s: settled(s) and s.active is not None and s.active.release == "1.1")
    assert serves(board) == "1.1"


def test_a_window_that_closes_during_the_trial_holds_the_swap(
    running: World, board: SimBoard, monkeypatch: pytest.MonkeyPatch
) -> None:
    board.install()
    board.maintenance = WindowSettings(**OPEN)  # type: ignore[arg-type]
    running.publish("1.1", 11)
    running.roll_out("1.1")
    real = boards.window_open

    def closes(*arguments: object) -> object:
        late = board.runner.candidate is not None
        return Opening(False, None, "the window closed") if late else real(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(boards, "window_open", closes)
    state = board.run(waiting_for_window)
    assert state.deployment is not None
    assert state.deployment.phase is Phase.VERIFYING, "as after a restart"
    assert board.runner.asked[-1] == "Drop", "the candidate's memory goes back"
    assert "Swap" not in board.runner.asked[3:]


def test_a_board_that_waits_for_its_window_still_goes_back_at_once(
    running: World, board: SimBoard
) -> None:
    board.install()
    follow(running, board)
    board.maintenance = WindowSettings(**CLOSED)  # type: ignore[arg-type]
    running.operator.change_rollout(running.operator.rollouts()[0].id, "halt")
    board.run(lambda s: s.active is not None and s.active.release == "1.0" and settled(s))
    assert serves(board) == "1.0"


def test_a_build_without_room_is_refused_before_a_byte_is_fetched(
    running: World, board: SimBoard
) -> None:
    board.install()
    before = {each.name for each in (board.folder / "state" / "blobs").iterdir()}
    board.disk_budget_mb = 1.0
    running.publish("1.1", 11, engine=bytes(2**21))
    running.roll_out("1.1")
    state = board.run(lambda s: s.deployment is not None and s.deployment.phase is Phase.REFUSED)
    assert state.deployment is not None
    verdict = state.deployment.verdict
    assert (verdict.code, verdict.cause) == ("disk", "environment")
    assert "does not fit: 1.0 MiB are wanting" in verdict.reason
    assert before <= {each.name for each in (board.folder / "state" / "blobs").iterdir()}
    assert not list((board.folder / "state").glob("partial/*"))
    assert serves(board) == "1.0"
    assert state.quarantine == {}


def test_what_broke_off_leaves_the_disk_with_the_next_confirmation(
    running: World, board: SimBoard
) -> None:
    board.install()
    (board.folder / "state" / "partial").mkdir(exist_ok=True)
    (board.folder / "state" / "partial" / ("e" * 64)).write_bytes(b"of a build that was halted")
    follow(running, board)
    assert list((board.folder / "state" / "partial").iterdir()) == []


def test_the_active_engine_is_never_room_for_another(running: World, board: SimBoard) -> None:
    board.install()
    follow(running, board)
    state = board.rest(1)
    assert state.active is not None
    assert state.previous is not None
    before = {each.name for each in (board.folder / "state" / "blobs").iterdir()}
    board.disk_budget_mb = 1.0
    # It fits only if 1.0 and 1.1, some 50 kB each, go.
    running.publish("1.2", 12, engine=bytes(2**20 - 40_000))
    running.roll_out("1.2")
    state = board.run(lambda s: s.deployment is not None and s.deployment.phase is Phase.REFUSED)
    assert state.deployment is not None
    assert state.deployment.verdict.code == "disk"
    assert before <= {each.name for each in (board.folder / "state" / "blobs").iterdir()}


def test_a_rollouts_window_travels_signed_and_holds_its_boards(
    running: World, board: SimBoard
) -> None:
    """The board's own setting names no window; the rollout's is shut, then the next one's open."""
    board.install()
    running.publish("1.1", 11)
    shut = WindowSpec(begins="03:00", ends="02:59", days=(_far_day(),))
    gate = GateSpec(soak_seconds=0, silence_seconds=10 * 86400)
    stages = (StageSpec(percent=100, gate=gate),)
    first = running.operator.create_rollout(
        RolloutSpec(model="shapes", release="1.1", stages=stages, window=shut)
    )
    state = board.run(waiting_for_window)
    assert state.deployment is not None
    assert state.deployment.window == shut
    board.rest()
    assert serves(board) == "1.0"
    running.operator.change_rollout(first.id, "halt")
    running.operator.create_rollout(
        RolloutSpec(model="shapes", release="1.1", stages=stages,
                    window=WindowSpec(begins="00:00", ends="00:00"))
    )  # fmt: skip
    board.run(lambda s: settled(s) and s.active is not None and s.active.release == "1.1")
    assert serves(board) == "1.1"


def _far_day() -> Day:
    """Returns a day of the week that neither is nor borders on today, wherever the board is."""
    return DAYS[(datetime.now(timezone.utc).weekday() + 3) % 7]
