"""What the agent decides, row by literal row."""

from __future__ import annotations

from dataclasses import replace

import pytest
from msgspec import structs

from kedge_agent.decisions import (
    MAX_ATTEMPTS,
    judge_preflight,
    quarantined,
    resumed,
)
from kedge_agent.local_protocol import Ratio
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
        ({"ok": False, "misfit": True, "error": "CUDA"}, Event.ENVIRONMENT, "misfit"),
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
