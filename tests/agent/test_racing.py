"""How much slower? On a busy board too, where single frames take many times as long."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

from kedge_agent.local_protocol import PreflightJob, Ratio, Slot
from kedge_agent.preflight import race
from kedge_agent.racing import looks, paired_ratio, settled

LIMIT = 1.5
SLOT = Slot(release="1", manifest="a" * 64, policy="b" * 64, engine="c" * 64)


@dataclass
class Board:
    """A core that a neighbour shares, by a clock of its own.

    Attributes:
        period: Every so many frames one waits for the neighbour; 0 is never.
        phase: Which of them.
        wait_ms: How long.
        order: Who ran.
    """

    period: int = 0
    phase: int = 0
    wait_ms: float = 20.0
    order: str = ""


@dataclass
class Timed:
    """A detector that takes so long, and longer when the neighbour has the core."""

    name: str
    ms: float
    board: Board
    taken: list[float] = field(default_factory=list)

    def detect(self, _: Any) -> Any:
        at = len(self.board.order)
        self.board.order += self.name
        busy = self.board.period and at % self.board.period == self.board.phase
        return type("Found", (), {"ms": self.ms + (self.board.wait_ms if busy else 0.0)})


def raced(board: Board, candidate: float, active: float, **job: Any) -> Ratio:
    order = PreflightJob(blobs="", candidate=SLOT, active=SLOT, threads=1, rounds=40, **job)
    frames = [np.zeros((2, 2, 3), np.uint8)]
    engines: Any = (Timed("c", candidate, board), Timed("a", active, board))
    _, _, ratio = race(*engines, frames, LIMIT, order)
    assert ratio is not None
    return ratio


def test_a_slow_engine_is_seen_at_once() -> None:
    ratio = raced(Board(), 2.5, 1.0)
    assert (ratio.median, ratio.low, ratio.high, ratio.rounds) == (2.5, 2.5, 2.5, 40)


@pytest.mark.parametrize("phase", [0, 1])
def test_a_neighbour_in_step_with_the_rounds_does_no_harm(phase: int) -> None:
    """He has the core at every other frame: were the order fixed, always at the same engine."""
    ratio = raced(Board(period=2, phase=phase), 1.5, 1.5)
    assert ratio.low <= 1 <= (ratio.high or 0)
    assert ratio.low <= LIMIT, "no harm"


def test_a_neighbour_in_a_few_rounds_moves_nothing() -> None:
    ratio = raced(Board(period=7), 1.2, 1.0)
    assert ratio.median == pytest.approx(1.2)
    assert settled(ratio, LIMIT)


def test_more_rounds_are_taken_while_they_do_not_tell_and_then_no_more() -> None:
    board = Board(period=2)
    assert raced(board, 1.5, 1.5).rounds == 320
    assert len(board.order) == 640
    assert board.order.startswith("caaccaac")


def test_a_slow_board_is_not_raced_until_it_looks_hung() -> None:
    assert raced(Board(period=2), 1.5, 1.5, race_seconds=0.0).rounds == 40


def test_looks_double() -> None:
    assert looks(40) == (40, 80, 160, 320)


def test_too_few_rounds_have_no_interval() -> None:
    ratio = paired_ratio([3.0] * 4, [1.0] * 4)
    assert (ratio.median, ratio.low, ratio.high) == (3.0, 0.0, None)
    assert not settled(ratio, LIMIT)
    assert settled(ratio, None), "without a limit there is nothing to tell"


def test_the_interval_is_that_of_the_tables() -> None:
    """n = 40 at 1 - 0.0025: ranks 11 and 30 (P(Bin(40, 1/2) <= 10) = 0.00111)."""
    ratio = paired_ratio([float(each) for each in range(1, 41)], [1.0] * 40)
    assert (ratio.low, ratio.high) == (11.0, 30.0)


def test_a_fair_engine_at_the_limit_is_hardly_ever_called_harmful() -> None:
    """However heavy the tails, over all four looks together."""
    rng = np.random.default_rng(5)
    wrong = 0
    for _ in range(400):
        new, old = np.exp(rng.standard_cauchy((2, 320)).clip(-30, 30))
        wrong += any(
            paired_ratio((new[:upto] * LIMIT).tolist(), old[:upto].tolist()).low > LIMIT
            for upto in looks(40)
        )
    assert wrong <= 6, "0.5 % a side"
