"""The tests behind gates: pinned figures, and error rates that hold however often one looks."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kedge_server.rollouts import sequential
from kedge_server.rollouts.sequential import failures, halt_bound, pass_bound, signs

PROOF = pass_bound(0.05, 0.05)
OUTCOMES = st.lists(st.sampled_from([True, False, None]), max_size=80)


def test_thirty_one_clean_devices_pass_and_thirty_do_not() -> None:
    assert sequential.clean_needed(0.01, 0.10, 0.05, 0.05) == 31
    assert failures([False] * 31, 0.01, 0.10, proof=PROOF).proven_at == 31
    assert failures([False] * 30, 0.01, 0.10, proof=PROOF).proven_at is None


def test_two_early_failures_halt_at_five_percent_and_one_does_not() -> None:
    assert failures([True], 0.01, 0.10, proof=PROOF).against < halt_bound(0.05)
    assert failures([True, True], 0.01, 0.10, proof=PROOF).against > halt_bound(0.05)


def test_two_of_a_hundred_that_fail_fast_are_no_proof() -> None:
    """Failures show first; those at work are not left out of the count."""
    outcomes: list[bool | None] = [None] * 100
    outcomes[10] = outcomes[60] = True
    assert failures(outcomes, 0.01, 0.10, proof=PROOF).against < halt_bound(0.05)


def test_those_at_work_prove_nothing() -> None:
    assert (
        failures([False] * 15 + [None] * 20 + [False] * 16, 0.01, 0.10, proof=PROOF).proven_at
        is None
    )


@given(OUTCOMES, st.randoms(use_true_random=False))
def test_whatever_is_still_to_come_no_crossing_is_taken_back(
    outcomes: list[bool | None], chance: random.Random
) -> None:
    before = failures(outcomes, 0.01, 0.10, proof=PROOF)
    settled = [chance.random() < 0.5 if each is None else each for each in outcomes]
    after = failures(settled, 0.01, 0.10, proof=PROOF)
    assert after.against >= before.against - 1e-9
    if before.proven_at is not None:
        assert after.proven_at is not None
        assert after.proven_at <= before.proven_at


@pytest.mark.parametrize(("rate", "most"), [(0.01, 0.05), (0.001, 0.05)])
def test_a_good_class_is_hardly_ever_accused(rate: float, most: float) -> None:
    chance = random.Random(1)
    alarms = sum(
        failures([chance.random() < rate for _ in range(400)], 0.01, 0.10, proof=PROOF).against
        >= halt_bound(0.05)
        for _ in range(400)
    )
    # Three standard errors above the promise; a wrong step or bound is far above.
    assert alarms / 400 <= most + 3 * math.sqrt(most * (1 - most) / 400)


def test_a_bad_class_hardly_ever_passes_and_is_caught() -> None:
    chance = random.Random(2)
    walks = [
        failures([chance.random() < 0.10 for _ in range(400)], 0.01, 0.10, proof=PROOF)
        for _ in range(400)
    ]
    assert sum(each.proven_at is not None for each in walks) / 400 <= 0.0527 + 0.034
    assert sum(each.against >= halt_bound(0.05) for each in walks) / 400 > 0.95


def test_a_fair_coin_looked_at_after_every_toss_is_hardly_ever_accused() -> None:
    chance = random.Random(3)
    walks = [signs([chance.random() < 0.5 for _ in range(300)], proof=PROOF) for _ in range(400)]
    assert sum(each.against >= halt_bound(0.05) for each in walks) / 400 <= 0.05 + 0.033
    assert sum(each.proven_at is not None for each in walks) / 400 <= 0.0527 + 0.034


def test_boards_that_are_all_worse_or_all_better_decide_it() -> None:
    assert signs([True] * 7, proof=PROOF).against > halt_bound(0.05)
    assert signs([False] * 7, proof=PROOF).proven_at == 6
    assert signs([False] * 5, proof=PROOF).proven_at is None


@given(st.lists(st.booleans(), max_size=60))
def test_signs_are_the_mixture_of_three_gamblers(worse: list[bool]) -> None:
    """By the definition, in plain products; proven where the bound is first crossed."""
    found = sequential.signs(worse, proof=1.5)
    bad, good, best, proof, proven = [1.0] * 3, [1.0] * 3, [0.0], [0.0], None
    for at, each in enumerate(worse, start=1):
        turn = 1 if each else -1
        bad = [held * (1 + stake * turn) for held, stake in zip(bad, (0.2, 0.5, 0.9), strict=True)]
        good = [
            held * (1 - stake * turn) for held, stake in zip(good, (0.2, 0.5, 0.9), strict=True)
        ]
        best.append(math.log(sum(bad) / 3))
        proof.append(math.log(sum(good) / 3))
        if proven is None and proof[-1] >= 1.5:
            proven = at
    assert found.against == pytest.approx(max(best), abs=1e-9)
    assert found.for_it == pytest.approx(max(proof), abs=1e-9)
    assert found.leaning == pytest.approx(best[-1], abs=1e-9)
    assert (found.proven_at, found.seen) == (proven, len(worse))
