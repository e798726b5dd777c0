"""The rollout's machine, pinned row by row; a wrong table must not agree with itself."""

from __future__ import annotations

import itertools
from typing import get_args

from kedge_server.devices.assignments import Claim, effective
from kedge_server.rollouts.stages import RolloutEvent, StageEvent, advance, advance_stage
from kedge_shared.api import RolloutState, StageState

PINNED = {
    ("running", "stage_passed"): "running",
    ("proposed", "start"): "running",
    ("proposed", "halt"): "stopped",
    ("proposed", "stop"): "stopped",
    ("proposed", "overdue"): "stopped",
    ("running", "last_passed"): "completed",
    ("running", "gate_failed"): "halted",
    ("running", "overdue"): "stopped",
    ("running", "pause"): "paused",
    ("running", "halt"): "halted",
    ("running", "stop"): "stopped",
    ("paused", "resume"): "running",
    ("paused", "halt"): "halted",
    ("paused", "stop"): "stopped",
    ("paused", "overdue"): "stopped",
    ("paused", "gate_failed"): "halted",
    ("completed", "late_failure"): "halted",
    ("completed", "halt"): "halted",
    ("stopped", "late_failure"): "halted",
    ("stopped", "halt"): "halted",
}


def test_every_pair_is_as_pinned_or_refused() -> None:
    for state, event in itertools.product(get_args(RolloutState), RolloutEvent):
        assert advance(state, event) == PINNED.get((state, event.value)), (state, event)


def test_nothing_leads_out_of_halted() -> None:
    assert all(advance("halted", event) is None for event in RolloutEvent)


def claims(*states: str, recall: bool = False) -> list[Claim]:
    """Oldest first; only the newest may be a recall."""
    return [
        Claim(order, state, f"de-{order}", recall and order == len(states))
        for order, state in enumerate(states, start=1)
    ]


def test_a_board_follows_the_newest_rollout_that_stands() -> None:
    assert effective(claims("completed", "running")) == ("de-2", "install")
    assert effective(claims("completed", "completed", "paused")) == ("de-3", "install")


def test_a_stopped_rollout_leaves_its_boards_alone() -> None:
    assert effective(claims("completed", "stopped")) == ("de-2", "install")


def test_a_halted_rollout_takes_its_boards_back() -> None:
    assert effective(claims("completed", "halted")) == ("de-1", "revert")
    assert effective(claims("completed", "halted", "halted")) == ("de-1", "revert")


def test_after_a_halt_the_next_release_is_an_install() -> None:
    assert effective(claims("completed", "halted", "running")) == ("de-3", "install")


def test_nothing_to_go_back_to_is_a_hold() -> None:
    assert effective(claims("halted")) == (None, "hold")
    assert effective([]) == (None, "hold")


def test_a_recall_is_a_revert() -> None:
    assert effective(claims("completed", "completed", "running", recall=True)) == ("de-3", "revert")


def test_order_of_rows_does_not_matter() -> None:
    rows = claims("completed", "halted", "running", "halted")
    for each in itertools.permutations(rows):
        assert effective(each) == ("de-3", "revert")


STAGES_PINNED = {
    ("waiting", "begin"): "running",
    ("running", "pass"): "passed",
    ("running", "widen"): "widened",
    ("running", "ask"): "asking",
    ("running", "fail"): "failed",
    ("asking", "approve"): "passed",
    ("asking", "reopen"): "running",
    ("asking", "fail"): "failed",
}


def test_every_pair_of_a_stage_is_as_pinned_or_refused() -> None:
    for state, event in itertools.product(get_args(StageState), StageEvent):
        assert advance_stage(state, event) == STAGES_PINNED.get((state, event.value))
