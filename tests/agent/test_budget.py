"""The shadow takes its share of the time and no more."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kedge_agent.evidence.budget import Budget


def spent(budget: Budget, costs: list[float], period: float, frames: int) -> tuple[float, int]:
    """Returns milliseconds taken by the shadow, and how often it ran."""
    taken, ran = 0.0, 0
    for _ in range(frames):
        budget.frame(period, period / 2, shadowed=False)
        if budget.may_run():
            cost = costs[ran % len(costs)]
            budget.ran(cost)
            taken, ran = taken + cost, ran + 1
    return taken, ran


@pytest.mark.parametrize(("cost", "stride"), [(40.0, 10.0), (10.0, 2.5), (400.0, 100.0), (1, 1.0)])
def test_the_stride_follows_the_cost(cost: float, stride: float) -> None:
    budget = Budget(0.1)
    taken, ran = spent(budget, [cost], 40.0, 4000)
    assert ran == pytest.approx(4000 / stride, rel=0.02)
    assert budget.stride == pytest.approx(stride, rel=0.02)
    assert taken <= 0.1 * 4000 * 40 + cost


@given(
    st.lists(st.floats(0.1, 500), min_size=1, max_size=30),
    st.floats(1, 200),
    st.floats(0.01, 1),
    st.integers(1, 600),
)
def test_never_more_than_its_share_and_one_frame(
    costs: list[float], period: float, share: float, frames: int
) -> None:
    taken, _ = spent(Budget(share), costs, period, frames)
    assert taken <= share * frames * period + max(costs) + 1e-6


def test_slowing_the_loop_down_is_paid_for() -> None:
    """A shadow of 4 ms that costs the live frames 40 is one of 40 ms."""
    rng, budget, slowed, frames, left = np.random.default_rng(1), Budget(0.1), 0.0, 6000, 0
    for _ in range(frames):
        live = 20.0 + rng.uniform(-1, 1) + (20.0 if left else 0.0)
        slowed += 20.0 if left else 0.0
        budget.frame(40.0, live, shadowed=left > 0)
        if left:
            left -= 1
            if not left:
                budget.ran(4.0)
        elif budget.may_run():
            left = 2
    assert 0.05 < slowed / (frames * 40.0) < 0.11


def test_a_quiet_night_pays_for_no_busy_morning() -> None:
    budget = Budget(0.1)
    spent(budget, [40.0], 40.0, 100)
    for _ in range(10_000):
        budget.frame(40.0, 20.0, shadowed=False)
    taken, _ = spent(budget, [40.0], 40.0, 10)
    assert taken <= 80.0
