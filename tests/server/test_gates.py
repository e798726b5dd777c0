"""Gates, row by literal row: what an operator would read, and whether the stage goes on."""

from __future__ import annotations

from dataclasses import replace

import pytest

from kedge_server.rollouts.facts import DeploymentFacts, GateFacts, Standing, standing
from kedge_server.rollouts.gates import judge
from kedge_shared.api import GateSpec
from kedge_shared.phases import Phase
from kedge_shared.protocol import Verdict

NOW = 10_000.0
GATE = GateSpec(max_failure_share=0.0, soak_seconds=60, silence_seconds=600)

#: A recall bears every failure: halting it would bring back what is being recalled.
RECALL = replace(GATE, max_failure_share=1.0, soak_seconds=0)
LENIENT = replace(GATE, max_failure_share=0.5, min_healthy=1)


def board(
    name: str,
    phase: Phase,
    code: str = "ok",
    cause: str | None = None,
    assigned: float = 9_500,
    confirmed: float | None = None,
) -> DeploymentFacts:
    verdict = Verdict(code=code, reason="why", cause=cause)  # type: ignore[arg-type]
    return DeploymentFacts(name, phase, verdict, assigned, confirmed)


def healthy(name: str, confirmed: float = 9_900) -> DeploymentFacts:
    return board(name, Phase.CONFIRMED, confirmed=confirmed)


HARMED = board("bad", Phase.ROLLED_BACK, "accuracy", "harm")
REFUSED = board("no", Phase.REFUSED, "latency", "harm")
FULL_DISK = board("full", Phase.REFUSED, "disk", "environment")
UNSURE = board("unsure", Phase.ROLLED_BACK, "undecided", "undecided")
BUSY = board("busy", Phase.PROBATION)
SILENT = board("silent", Phase.PROBATION, assigned=9_000)


@pytest.mark.parametrize(
    ("facts", "expected"),
    [
        (healthy("a"), "healthy"),
        (HARMED, "failed"),
        (REFUSED, "failed"),
        (FULL_DISK, "undecided"),
        (UNSURE, "undecided"),
        (BUSY, "pending"),
        (SILENT, "failed"),
        (board("i", Phase.IDLE), "pending"),
        (board("i", Phase.DOWNLOADING, assigned=9_399), "failed"),
        (board("i", Phase.DOWNLOADING, assigned=9_401), "pending"),
        # An agent that names no cause does not make a bad build good.
        (board("t", Phase.REFUSED, "trust"), "failed"),
        (board("f", Phase.REFUSED, "fidelity"), "failed"),
        (board("q", Phase.REFUSED, "quarantined"), "failed"),
        (board("m", Phase.REFUSED, "memory"), "undecided"),
        (board("n", Phase.REFUSED, "network"), "undecided"),
    ],
)
def test_what_a_board_counts_as(facts: DeploymentFacts, expected: str) -> None:
    assert standing(facts, GATE, NOW) is Standing(expected)


@pytest.mark.parametrize(
    ("gate", "cohort", "verdict", "said"),
    [
        (GATE, [], "pass", "no device"),
        (GATE, [healthy("a"), healthy("b")], "pass", "2 of 2 devices healthy"),
        (GATE, [healthy("a"), BUSY], "undecided", "1 of 2 devices have proven healthy"),
        (GATE, [healthy("a"), HARMED], "fail", "bad: accuracy, why"),
        (GATE, [healthy("a"), SILENT], "fail", "silent has been silent for 1000 s"),
        (GATE, [healthy("a"), FULL_DISK], "undecided", "1 could not decide"),
        (GATE, [FULL_DISK], "undecided", "0 of 1"),
        (GATE, [UNSURE, UNSURE], "undecided", "2 could not decide"),
        (GATE, [healthy("a", 9_950)], "undecided", "soaking 10 s more"),
        # A failure that is borne is not waited for, and is told.
        (replace(GATE, max_failure_share=0.5), [healthy("a"), HARMED], "pass", "failed; bad: acc"),
        (RECALL, [healthy("a"), SILENT], "pass", "silent has been silent for 1000 s"),
        (RECALL, [healthy("a"), SILENT, BUSY], "undecided", "1 of 2 devices have proven healthy"),
        (RECALL, [healthy("a"), SILENT, FULL_DISK], "undecided", "1 could not decide; silent has"),
        (RECALL, [HARMED, SILENT], "undecided", "0 of 1 devices have proven healthy, 2 f"),
        (LENIENT, [healthy("a"), HARMED], "pass", "1 of 2"),
        (replace(LENIENT, max_failure_share=0.49), [healthy("a"), HARMED], "fail", "49%"),
        (replace(GATE, min_healthy=5), [healthy("a"), healthy("b")], "pass", "2 of 2"),
        (replace(GATE, min_healthy=1), [healthy("a"), BUSY], "pass", "1 of 2"),
        # The last confirmation counts, not the first.
        (GATE, [healthy("a", 100), healthy("b", 9_999)], "undecided", "soaking 59 s"),
    ],
)  # fmt: skip
def test_gate(gate: GateSpec, cohort: list[DeploymentFacts], verdict: str, said: str) -> None:
    decision = judge(gate, GateFacts(tuple(cohort)), NOW)
    assert decision.verdict == verdict
    assert said in decision.reason


def test_boards_that_another_rollout_took_count_for_neither_side() -> None:
    taken = board("taken", Phase.ROLLED_BACK, "superseded")
    both = judge(GATE, GateFacts((healthy("a"), healthy("b"), taken)), NOW)
    assert (both.verdict, both.reason) == ("pass", "2 of 2 devices healthy, 0 failed")
    none = judge(GATE, GateFacts((taken, replace(taken, device="other"))), NOW)
    assert (none.verdict, none.reason) == ("undecided", "all 2 devices were taken out of it")


def test_at_the_end_of_silence_a_board_is_not_yet_silent() -> None:
    still = board("i", Phase.PROBATION, assigned=NOW - GATE.silence_seconds)
    assert standing(still, GATE, NOW) is Standing.PENDING
    assert standing(still, GATE, NOW + 1) is Standing.FAILED


def test_a_soak_ends_when_its_time_is_over() -> None:
    one = GateFacts((healthy("a", confirmed=NOW - GATE.soak_seconds),))
    assert judge(GATE, one, NOW - 1).verdict == "undecided"
    assert judge(GATE, one, NOW).verdict == "pass"


def test_silence_alone_never_passes_however_long() -> None:
    gate = replace(GATE, max_failure_share=1.0)
    for later in (0, 1_000, 1_000_000):
        assert judge(gate, GateFacts((SILENT, SILENT)), NOW + later).verdict != "pass"
