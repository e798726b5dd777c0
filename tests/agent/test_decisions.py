"""What the agent decides, row by literal row."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from msgspec import structs

from kedge_agent.decisions import (
    MAX_ATTEMPTS,
    agreement_bounds,
    judge_preflight,
    judge_probation,
    judge_shadow,
    quarantined,
    resumed,
)
from kedge_agent.local_protocol import Evidence, Ratio
from kedge_agent.patience import ProbationSettings
from kedge_agent.state import Deployment, State
from kedge_shared.device_classes import Budgets
from kedge_shared.manifest import Shadow
from kedge_shared.phases import Event, Phase
from kedge_shared.protocol import ManifestRef
from tests.shared import samples
from tests.sim.board import GOOD

MANIFEST = samples.manifest()
POLICY = samples.policy()


def ratio(median: float, low: float, high: float | None) -> Ratio:
    return Ratio(median=median, low=low, high=high, rounds=40)


PATIENCE = ProbationSettings(seconds=60, max_seconds=600, min_frames=100, error_share=0.05)


@pytest.mark.parametrize(
    ("changes", "event", "code"),
    [
        ({}, Event.PASSED, "ok"),
        ({"label_score": 0.60}, Event.PASSED, "ok"),
        ({"label_score": 0.59}, Event.HARM, "accuracy"),
        # A model that reproduces its own bad outputs to the letter is still a bad model.
        ({"label_score": 0.59, "fidelity": 1.0, "agreement": None}, Event.HARM, "accuracy"),
        ({"label_score": None}, Event.HARM, "accuracy"),
        ({"fidelity": 0.0}, Event.HARM, "fidelity"),
        ({"fidelity": None}, Event.PASSED, "ok"),
        ({"ratio": ratio(1.5, 1.4, 1.6)}, Event.PASSED, "ok"),
        ({"ratio": ratio(1.6, 1.51, 1.7)}, Event.HARM, "latency"),
        ({"ratio": ratio(2.5, 0.0, None)}, Event.UNDECIDED, "undecided"),
        # Medians of two lists say nothing: a neighbour had the core.
        ({"candidate_ms": 38, "active_ms": 15}, Event.PASSED, "ok"),
        # A first install has nothing to be compared with.
        (
            {"candidate_ms": 900, "active_ms": 0, "ratio": None, "agreement": None},
            Event.PASSED,
            "ok",
        ),
        ({"zero_scores": True}, Event.HARM, "accuracy"),
        ({"non_finite": 3}, Event.HARM, "crash"),
        ({"ok": False, "error": "engine hangs"}, Event.HARM, "crash"),
        ({"ok": False, "short": True, "error": "killed"}, Event.ENVIRONMENT, "memory"),
        ({"agreement": 0.1, "label_score": 0.90}, Event.HARM, "accuracy"),
        # It sees other things than the old one, and sees them better.
        ({"agreement": 0.1, "label_score": 0.96}, Event.PASSED, "ok"),
    ],
)
def test_preflight(changes: dict[str, object], event: Event, code: str) -> None:
    ruling = judge_preflight(structs.replace(GOOD, **changes), MANIFEST, POLICY)
    assert (ruling.event, ruling.verdict.code) == (event, code)
    assert ruling.verdict.reason
    cause = {Event.HARM: "harm", Event.UNDECIDED: "undecided", Event.ENVIRONMENT: "environment"}
    if event is not Event.PASSED:
        assert (ruling.verdict.cause, ruling.verdict.stopped_in) == (cause[event], Phase.PREFLIGHT)


def test_a_policy_without_a_latency_ratio_does_not_judge_it() -> None:
    free = replace(MANIFEST, budgets=Budgets())
    slow = structs.replace(GOOD, ratio=ratio(9, 8, 10))
    assert judge_preflight(slow, free, POLICY).event is Event.PASSED


def test_renamed_work_is_not_compared() -> None:
    free = replace(MANIFEST, shadow=Shadow(must_hold="nothing"))
    other = structs.replace(GOOD, agreement=0.0, label_score=0.9)
    assert judge_preflight(other, free, POLICY).event is Event.PASSED


def evidence(*blocks: float, **more: float) -> Evidence:
    return Evidence(frames=len(blocks) * 10, objects=len(blocks) * 10, blocks=blocks, **more)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("found", "ended", "event"),
    [
        (evidence(), False, None),
        (evidence(), True, Event.UNDECIDED),
        (evidence(*[1.0] * 3), True, Event.UNDECIDED),
        (evidence(*[1.0] * 60), False, None),
        (evidence(*[1.0] * 60), True, Event.PASSED),
        (evidence(*[0.1] * 40), False, Event.HARM),
        (evidence(*[0.1] * 40), True, Event.HARM),
        (evidence(*[1.0] * 60, errors=1), False, Event.HARM),
    ],
)
def test_shadow(found: Evidence, ended: bool, event: Event | None) -> None:
    assert judge_shadow(found, MANIFEST, PATIENCE, ended=ended).event is event


SURE = (1.0,) * 60
SLOW = {"new_p95_ms": 51.0}


@pytest.mark.parametrize(
    ("found", "before", "frames", "elapsed", "event", "code"),
    [
        (evidence(*SURE), SURE, 500, 61, Event.HEALTHY, "ok"),
        (evidence(*SURE), SURE, 500, 59, None, "ok"),
        (evidence(*SURE), SURE, 99, 61, None, "ok"),
        # Evidence of the shadow counts for health …
        (evidence(), SURE, 500, 61, Event.HEALTHY, "ok"),
        # … and excuses no harm.
        (evidence(*[0.1] * 40), SURE, 500, 5, Event.HARM, "accuracy"),
        (evidence(*[0.1] * 40), SURE, 500, 61, Event.HARM, "accuracy"),
        (evidence(*SURE, errors=1), SURE, 500, 61, Event.HARM, "crash"),
        (evidence(*SURE, new_ms=16.0, old_ms=10.0), SURE, 500, 5, Event.HARM, "latency"),
        (evidence(*SURE, new_ms=14.0, old_ms=10.0), SURE, 500, 61, Event.HEALTHY, "ok"),
        (evidence(*SURE, new_p95_ms=51.0), SURE, 500, 5, Event.HARM, "latency"),
        (evidence(*SURE, new_p95_ms=51.0), SURE, 99, 5, None, "ok"),
        (evidence(*SURE, **SLOW, new_ms=11.6, old_ms=10.0), SURE, 500, 5, Event.HARM, "latency"),
        # Equal engines' medians differ by some per cent on a shared board; that is no harm.
        (evidence(*SURE, **SLOW, new_ms=11.4, old_ms=10.0), SURE, 500, 61, None, "ok"),
        # Too few paired frames to tell whose fault it is.
        (evidence(*[1.0] * 5, **SLOW), SURE, 500, 61, None, "ok"),
        # Over the budget, and the older engine no faster on the same frames: the board is busy.
        (evidence(*SURE, **SLOW, new_ms=9.9, old_ms=10.0), SURE, 500, 61, None, "ok"),
        (
            evidence(*SURE, **SLOW, new_ms=9.9, old_ms=10.0),
            SURE,
            500,
            601,
            Event.UNDECIDED,
            "undecided",
        ),
        (evidence(), (), 500, 599, None, "ok"),
        (evidence(), (), 500, 601, Event.UNDECIDED, "undecided"),
        # A first install: nothing to compare with, frames are the proof.
        (None, (), 500, 61, Event.HEALTHY, "ok"),
        (None, (), 0, 61, None, "ok"),
        (None, (), 0, 601, Event.UNDECIDED, "undecided"),
    ],
)
def test_probation(
    found: Evidence | None,
    before: tuple[float, ...],
    frames: int,
    elapsed: float,
    event: Event | None,
    code: str,
) -> None:
    budgets = Budgets(latency_ratio=1.5, latency_p95_ms=50)
    ruling = judge_probation(
        found, before, replace(MANIFEST, budgets=budgets), POLICY, PATIENCE,
        frames=frames, elapsed=elapsed,
    )  # fmt: skip
    assert (ruling.event, ruling.verdict.code) == (event, code)


def test_a_proof_of_health_says_how_much_it_saw_of_what_the_older_engine_sees() -> None:
    """A fleet's gate asks for the figure; without an older engine there is none."""
    seen = evidence(*SURE[:30], *[0.95] * 30)
    figures = [
        judge_probation(each, before, MANIFEST, POLICY, PATIENCE, frames=500, elapsed=61)
        .verdict.evidence
        for each, before in ((seen, SURE), (None, ()))
    ]  # fmt: skip
    assert figures[0] == {"frames": 500, "agreement": pytest.approx((90 + 0.95 * 30) / 120)}
    assert figures[1] == {"frames": 500}


def test_the_owners_may_have_undecided_engines_kept() -> None:
    keep = replace(POLICY, on_undecided="confirm")
    ruling = judge_probation(evidence(), (), MANIFEST, keep, PATIENCE, frames=500, elapsed=601)
    assert (ruling.event, ruling.verdict.code) == (Event.HEALTHY, "undecided")
    silent = judge_probation(evidence(), (), MANIFEST, keep, PATIENCE, frames=0, elapsed=601)
    assert silent.event is Event.UNDECIDED, "an engine that answered nothing is never kept"


@pytest.mark.parametrize("mean", [0.5, 0.8, 0.95])
def test_bounds_hold_at_every_look(mean: float) -> None:
    """Peeking after each block must not raise the share of errors: at most 5 % a side."""
    rng = np.random.default_rng(11)
    wrong = {"low": 0, "high": 0}
    runs = 300
    for _ in range(runs):
        blocks = rng.beta(mean * 6, (1 - mean) * 6, 60).tolist()
        low, high = agreement_bounds(blocks, 0.05)  # running: the worst of all looks
        wrong["low"] += low > mean
        wrong["high"] += high < mean
    assert max(wrong.values()) / runs <= 0.05


def test_bounds_close_in_and_tell_good_from_bad() -> None:
    assert agreement_bounds([], 0.05) == (0.0, 1.0)
    low, high = agreement_bounds([0.97] * 60, 0.05)
    assert low > 0.85
    assert high > 0.97
    assert agreement_bounds([0.2] * 30, 0.05)[1] < 0.5


def deployment(phase: Phase, attempts: int = 0) -> Deployment:
    ref = ManifestRef(path="models/m/1/c/manifest.json", sha256="a" * 64, length=9)
    return Deployment(id="d", rollout="r", intent="install", manifest=ref, counter=1,
                      phase=phase, attempts=attempts)  # fmt: skip


@pytest.mark.parametrize(
    ("phase", "attempts", "after", "counted"),
    [
        (Phase.DOWNLOADING, 0, Phase.DOWNLOADING, 0),
        (Phase.PREFLIGHT, 0, Phase.VERIFYING, 1),
        (Phase.SHADOW, 4, Phase.VERIFYING, 5),
        (Phase.SHADOW, 5, Phase.REFUSED, 6),
        (Phase.SWAPPING, 0, Phase.ROLLING_BACK, 1),
        # Going back is never given up.
        (Phase.SWAPPING, 99, Phase.ROLLING_BACK, 100),
        (Phase.PROBATION, 99, Phase.PROBATION, 99),
        (Phase.CONFIRMED, 0, Phase.CONFIRMED, 0),
    ],
)
def test_after_a_crash(phase: Phase, attempts: int, after: Phase, counted: int) -> None:
    assert MAX_ATTEMPTS == 5
    found = resumed(deployment(phase, attempts))
    assert (found.phase, found.attempts) == (after, counted)


def test_quarantine_is_lifted_by_an_operators_retry_alone() -> None:
    state = State(quarantine={"e" * 64: "crashed"})
    verdict = quarantined("e" * 64, state, retry=False)
    assert verdict is not None
    assert (verdict.code, verdict.cause) == ("quarantined", "harm")
    assert "crashed" in verdict.reason
    assert quarantined("e" * 64, state, retry=True) is None
    assert quarantined("f" * 64, state, retry=False) is None
