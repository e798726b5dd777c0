"""The builder's gate, row by literal row."""

from __future__ import annotations

from dataclasses import replace

import pytest

from kedge_builder.judge.acceptance import EXIT, Figures, judge
from kedge_shared.bench import Speed
from kedge_shared.device_classes import Budgets

GOOD = Figures(
    latency_p95_ms=10, memory_mb=50, artifact_mb=3, drop=0.002, drop_low=-0.001, drop_high=0.005,
    speed=Speed(2.0, 1.9, 2.1), finite=True, seen=100, float_seen=110, images=500,
)  # fmt: skip
BUDGETS = Budgets(latency_p95_ms=12, memory_mb=64, artifact_mb=4, accuracy_drop=0.01)


@pytest.mark.parametrize(
    ("changes", "verdict", "first"),
    [
        ({}, "pass", "latency p95 10.0 ms, budget 12.0 ms"),
        ({"latency_p95_ms": 12.0}, "pass", "latency"),
        ({"latency_p95_ms": 12.1}, "missed", "latency p95 12.1 ms, budget 12.0 ms"),
        ({"memory_mb": 65}, "missed", "memory 65.0 MiB"),
        ({"memory_mb": None}, "pass", "latency"),
        ({"artifact_mb": 4.1}, "missed", "artifact 4.1 MiB"),
        ({"drop_low": 0.011, "drop": 0.02, "drop_high": 0.03}, "missed", "drops by 2.00 points"),
        ({"drop_high": 0.0101}, "undecided", "too close to tell"),
        ({"drop": 0.02, "drop_low": 0.0, "drop_high": 0.04}, "undecided", "too close to tell"),
        ({"drop": -0.01, "drop_low": -0.02, "drop_high": 0.0}, "pass", "latency"),
        ({"speed": Speed(0.9, 0.88, 0.92)}, "missed", "0.90 times float's"),
        ({"speed": Speed(0.97, 0.96, 0.98)}, "pass", "latency"),
        # A noisy neighbour is no verdict: the interval reaches what equal engines do.
        ({"speed": Speed(0.9, 0.7, 1.1)}, "pass", "latency"),
        ({"latency_p95_ms": None, "speed": None}, "undecided", "latency was not measured"),
        ({"speed": None}, "undecided", "the board told no interval"),
        ({"finite": False}, "missed", "NaN"),
        ({"seen": 0}, "missed", "sees nothing at all on 500 images"),
        ({"seen": 0, "float_seen": 0}, "pass", "latency"),
        # What is missed weighs more than what is undecided.
        ({"latency_p95_ms": 20, "drop_high": 0.02}, "missed", "latency"),
    ],
)  # fmt: skip
def test_verdict(changes: dict[str, float], verdict: str, first: str) -> None:
    decision = judge(replace(GOOD, **changes), BUDGETS, {})
    assert decision.verdict == verdict
    assert first in decision.reasons[0]


def test_exit_statuses_are_the_documented_ones() -> None:
    assert dict(EXIT) == {"pass": 0, "overridden": 0, "missed": 3, "undecided": 4}


def test_an_override_is_recorded_with_what_it_accepts() -> None:
    slow = replace(GOOD, latency_p95_ms=20)
    decision = judge(slow, BUDGETS, {"latency_p95_ms": "on trial"})
    assert decision.verdict == "overridden"
    (only,) = decision.overrides
    assert (only.budget, only.reason, only.measured, only.limit) == (
        "latency_p95_ms", "on trial", 20, 12,
    )  # fmt: skip


def test_an_override_covers_its_own_budget_alone() -> None:
    slow = replace(GOOD, latency_p95_ms=20, memory_mb=100)
    assert judge(slow, BUDGETS, {"latency_p95_ms": "on trial"}).verdict == "missed"
    assert judge(GOOD, BUDGETS, {"latency_p95_ms": "on trial"}).overrides == ()


def test_accuracy_proven_worse_is_not_covered_by_undecided() -> None:
    worse = replace(GOOD, drop=0.05, drop_low=0.04, drop_high=0.06)
    assert judge(worse, BUDGETS, {"undecided": "few images"}).verdict == "missed"
    close = replace(GOOD, drop_high=0.02)
    assert judge(close, BUDGETS, {"undecided": "few images"}).verdict == "overridden"


@pytest.mark.parametrize("broken", [{"finite": False}, {"seen": 0}])
def test_broken_outputs_cannot_be_overridden(broken: dict[str, float]) -> None:
    everything = dict.fromkeys(("outputs", "latency_p95_ms", "speed", "undecided"), "please")
    assert judge(replace(GOOD, **broken), BUDGETS, everything).verdict == "missed"


def test_undecided_says_how_many_images_would_decide() -> None:
    close = replace(GOOD, drop=0.0, drop_low=-0.02, drop_high=0.02, images=100)
    assert "about 400 images would decide" in judge(close, BUDGETS, {}).reasons[0]


def test_a_class_without_budgets_passes_anything_that_works() -> None:
    assert judge(replace(GOOD, latency_p95_ms=1e9), Budgets(), {}).verdict == "pass"
