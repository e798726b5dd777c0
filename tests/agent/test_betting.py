"""Betting is fair under the null, however often one looks, and wins when it is wrong."""

from __future__ import annotations

import math

import numpy as np
import pytest

from kedge_agent.evidence.loss import Findings, LossTest
from kedge_agent.evidence.pace import BLOCK, PaceTest
from kedge_shared.betting import Bet, Capital, path
from kedge_shared.manifest import Shadow

BETS = (Bet(0.5, 0.75), Bet(0.1, 0.25))
RUNS = 4000


def test_a_row_of_rounds_at_once_is_round_after_round() -> None:
    """The server judges all boards by the arithmetic by which a board judges frame after frame."""
    values = [1.0, 0.0, float("nan"), 0.25, 1.0, 1.0, 0.0]
    capital = Capital(0.3, BETS)
    after = []
    for each in values:
        capital.add(each)
        after.append(float(capital.log))
    assert list(path(0.3, BETS, values)) == pytest.approx(after)


def test_what_a_round_wins_and_loses() -> None:
    capital = Capital(0.2, BETS)
    assert float(capital.log) == pytest.approx(0)
    capital.add(1.0)  # 0.75 · (1 + 0.5 · 4) + 0.25 · (1 + 0.1 · 4)
    assert math.exp(float(capital.log)) == pytest.approx(0.75 * 3.0 + 0.25 * 1.4)
    capital.add(0.0)
    assert math.exp(float(capital.log)) == pytest.approx(0.75 * 3.0 * 0.5 + 0.25 * 1.4 * 0.9)
    before = float(capital.log)
    capital.add(float("nan"))
    assert float(capital.log) == before, "what was not observed is not played"


@pytest.mark.parametrize("null", [0.0, 1.0, -0.1])
def test_a_null_that_cannot_be_bet_against_is_refused(null: float) -> None:
    with pytest.raises(ValueError, match="between 0 and 1"):
        Capital(null, BETS)


@pytest.mark.parametrize("null", [0.025, 0.3, 0.5])
@pytest.mark.parametrize("shape", ["all or nothing", "spread"])
def test_capital_does_not_grow_under_the_null(null: float, shape: str) -> None:
    """Mean 1 after six rounds at the null itself: a fair game. (After many, the mean rests on
    runs too rare to be drawn.)"""
    rng = np.random.default_rng(3)
    capital = Capital(null, (Bet(0.06, 0.5), Bet(0.12, 0.5)), (20_000,))
    for _ in range(6):
        if shape == "spread":
            capital.add(rng.beta(2 * null, 2 * (1 - null), 20_000))
        else:
            capital.add(rng.random(20_000) < null)
    won = np.exp(capital.log)
    assert won.mean() == pytest.approx(1.0, abs=4 * won.std() / math.sqrt(20_000))


def lived(rate: float, ways: str, rng: np.random.Generator, tracks: int) -> LossTest:
    """Returns the test after tracks of which ``rate`` are missed, and gained too if symmetric."""
    test = LossTest(Shadow(), (RUNS,))
    for _ in range(tracks):
        drawn = rng.random(RUNS)
        lost = drawn < rate
        gained = drawn > 1 - rate if ways == "symmetric" else np.zeros(RUNS, bool)
        test.add(np.where(gained, np.nan, lost), np.where(lost, np.nan, gained))
    return test


@pytest.mark.parametrize(
    ("rate", "share"), [(0.0, 0.0), (0.025, 0.01), (0.05, 0.10), (0.15, 0.10), (0.2, 0.10)]
)
def test_equal_engines_are_rarely_called_worse(rate: float, share: float) -> None:
    """1 % under the stated disagreement, 10 % under any other, over 400 looks."""
    test = lived(rate, "symmetric", np.random.default_rng(4), 400)
    margin = 3 * math.sqrt(share * (1 - share) / RUNS)
    assert test.findings.harm(0.01).mean() <= share + margin


def test_a_worse_engine_is_hardly_ever_confirmed() -> None:
    """A net loss at the very limit: 5 % at the most, at all looks together."""
    rng, ever = np.random.default_rng(5), np.zeros(RUNS, bool)
    test = LossTest(Shadow(), (RUNS,))
    for _ in range(300):
        test.add(rng.random(RUNS) < 0.1, np.zeros(RUNS))
        ever |= test.findings.health(0.05)
    assert ever.mean() <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / RUNS)


def after(*tracks: tuple[float, float], terms: Shadow | None = None) -> Findings:
    test = LossTest(terms or Shadow())
    for missed, gained in tracks:
        test.add(missed, gained)
    return test.findings


NONE = float("nan")
BOTH, LOST, GAINED = (0.0, 0.0), (1.0, NONE), (NONE, 1.0)


@pytest.mark.parametrize(
    ("tracks", "terms", "harm", "health"),
    [
        ([], {}, False, False),
        ([BOTH] * 36, {}, False, False),
        ([BOTH] * 37, {}, False, True),
        # Everything lost is seen after four objects, not three.
        ([LOST] * 3, {}, False, False),
        ([LOST] * 4, {}, True, False),
        # Each object missed on a tenth of its looks is as much of a loss.
        ([(0.1, 0.0)] * 17, {}, True, False),
        # Losses that gains outweigh are no harm …
        ([BOTH] * 18 + [LOST, GAINED, GAINED] * 2, {}, False, False),
        ([LOST, GAINED] * 4 + [BOTH] * 60, {}, False, False),
        # … but whoever loses all is not excused by seeing as much of something else.
        ([LOST, GAINED] * 12, {}, True, False),
        # More disagreement may be stated: models of another make.
        ([LOST] * 5 + [BOTH] * 20, {}, True, False),
        ([LOST] * 5 + [BOTH] * 20, {"disagreement": 0.4}, False, False),
        # Seeing more is harm only where the manifest says that neither may.
        ([GAINED] * 20, {}, False, False),
        ([GAINED] * 20, {"must_hold": "agreement"}, True, False),
        ([(0.0, 0.5)] * 40, {}, False, True),
        ([(0.0, 0.5)] * 40, {"must_hold": "agreement"}, True, False),
        # Health is of the net loss.
        ([(0.1, 0.1)] * 60, {}, False, True),
        # A wider margin is proven sooner.
        ([BOTH] * 13, {"max_loss": 0.3}, False, True),
        ([BOTH] * 13, {}, False, False),
    ],
)
def test_what_tracks_prove(
    tracks: list[tuple[float, float]], terms: dict[str, object], harm: bool, health: bool
) -> None:
    found = after(*tracks, terms=Shadow(**terms))  # type: ignore[arg-type]
    assert (bool(found.harm(0.01)), bool(found.health(0.05))) == (harm, health)


def test_losses_and_gains_are_weighed_alike() -> None:
    """Whoever is better, the stakes on "one of them is worse" are the same."""
    rng = np.random.default_rng(6)
    shares = rng.uniform(0, 0.4, (30, 2))
    there = after(*[(a, b) for a, b in shares])
    back = after(*[(1 - a, 1 - b) for a, b in shares])
    one, other = LossTest(Shadow()), LossTest(Shadow())
    for missed, gained in shares:
        one.add(missed, gained)
        other.add(gained, missed)
    assert float(one.findings.worse) == pytest.approx(float(there.worse))
    assert min(float(one.findings.worse), float(other.findings.worse)) < 1
    assert float(back.sighted) < float(there.sighted)


def test_more_missed_is_never_less_harm_nor_more_health() -> None:
    rng = np.random.default_rng(7)
    shares = rng.uniform(0, 0.5, (40, 2))
    milder, worse = after(*shares), after(*[(min(1, a + 0.1), b) for a, b in shares])
    for name in ("missing", "worse", "blind"):
        assert float(getattr(worse, name)) >= float(getattr(milder, name))
    for name in ("safe", "sighted"):
        assert float(getattr(worse, name)) < float(getattr(milder, name))


def test_harm_once_proven_stays_proven() -> None:
    found = after(*[LOST] * 4, *[BOTH] * 200)
    assert bool(found.harm(0.01))
    assert not bool(after(*[LOST] * 4, *[BOTH] * 5).health(0.05))


@pytest.mark.parametrize(
    ("new_ms", "pairs", "slow"), [(16.0, 9, True), (16.0, 8, False), (14.0, 40, False)]
)
def test_a_slow_engine_is_told_by_pairs(new_ms: float, pairs: int, slow: bool) -> None:
    test = PaceTest(1.5)
    for _ in range(pairs * BLOCK):
        test.add(10.0, new_ms)
    assert (test.log >= math.log(100)) is slow


def test_a_few_slow_frames_are_no_slow_engine() -> None:
    test = PaceTest(1.5)
    for at in range(2000):
        test.add(10.0, 90.0 if at % 10 < 4 else 10.0)
    assert test.log < 1


def test_a_board_that_slows_down_both_is_no_slow_engine() -> None:
    test, free = PaceTest(1.5), PaceTest(None)
    rng = np.random.default_rng(8)
    for _ in range(3000):
        board = rng.choice([1.0, 5.0])
        test.add(10 * board * rng.uniform(0.9, 1.1), 10 * board * rng.uniform(0.9, 1.1))
        free.add(10.0, 900.0)
    assert test.log < 1
    assert free.log == 0
