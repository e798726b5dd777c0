"""Stages judged by a test: by class, at any time, and honest about too few."""

from __future__ import annotations

from dataclasses import replace

import pytest

from kedge_server.rollouts.facts import ControlFacts, DeploymentFacts, GateFacts
from kedge_server.rollouts.gates import judge
from kedge_server.rollouts.stages import StageEvent, pools, step
from kedge_shared.api import GateSpec, LimitSpec, SequentialSpec, StageSpec
from kedge_shared.phases import Phase
from kedge_shared.protocol import Verdict

NOW = 10_000.0
FAILURES = SequentialSpec(latency_ratio=None)
GATE = GateSpec(soak_seconds=60, silence_seconds=600, sequential=FAILURES)
TIMED = replace(GATE, sequential=SequentialSpec())


def board(number: int, phase: Phase = Phase.CONFIRMED, **fields: object) -> DeploymentFacts:
    harm = phase in {Phase.ROLLED_BACK, Phase.REFUSED}
    verdict = Verdict(code="accuracy", reason="worse", cause="harm") if harm else Verdict(code="ok")
    given: dict[str, object] = {
        "device": f"cam-{number:03d}", "phase": phase, "verdict": verdict, "assigned": 9_000.0,
        "confirmed": 9_500.0 if phase is Phase.CONFIRMED else None, "device_class": "orin",
        "begun": 9_000.0 + number / 1000,
    }  # fmt: skip
    return DeploymentFacts(**(given | fields))  # type: ignore[arg-type]


def boards(count: int, phase: Phase = Phase.CONFIRMED, **fields: object) -> list[DeploymentFacts]:
    return [board(each, phase, **fields) for each in range(count)]


def facts(*cohort: DeploymentFacts, **fields: object) -> GateFacts:
    return GateFacts(tuple(cohort), **fields)  # type: ignore[arg-type]


def test_thirty_one_clean_boards_pass_and_thirty_are_too_few() -> None:
    assert judge(GATE, facts(*boards(31)), NOW).verdict == "pass"
    few = judge(GATE, facts(*boards(30)), NOW)
    assert (few.verdict, few.exhausted) == ("undecided", True)
    assert "31 clean ones would" in few.reason


def test_a_bad_class_cannot_hide_behind_a_good_one() -> None:
    orins = boards(500)
    rocks = [
        board(each, Phase.ROLLED_BACK if each < 3 else Phase.CONFIRMED, device_class="rk3588",
              device=f"rock-{each}")
        for each in range(6)
    ]  # fmt: skip
    decision = judge(GATE, facts(*orins, *rocks), NOW)
    assert decision.verdict == "fail"
    assert decision.reason.startswith("rk3588: 3 healthy, 3 failed")
    assert "orin" not in decision.reason
    # The same failures scattered over as many boards of one class are borne: 3 of 506.
    alike = [
        replace(each, device_class="orin", begun=9_000.15 + at / 10)
        for at, each in enumerate(rocks)
    ]
    assert judge(GATE, facts(*orins, *alike), NOW).verdict == "pass"


def test_a_threshold_is_held_to_each_class_too() -> None:
    gate = GateSpec(max_failure_share=0.1, soak_seconds=0, silence_seconds=600)
    rocks = [board(each, Phase.REFUSED, device_class="rk3588") for each in range(2)]
    decision = judge(gate, facts(*boards(100), *rocks), NOW)
    assert decision.verdict == "fail"
    assert decision.reason.startswith("rk3588: 2 of 2 devices failed, 10% is allowed")


def test_a_release_that_is_a_little_bad_everywhere_shows_in_all_classes_together() -> None:
    cohort = [
        board(each, Phase.REFUSED if each % 12 == 0 else Phase.CONFIRMED,
              device_class=f"class-{each % 8}")
        for each in range(96)
    ]  # fmt: skip
    decision = judge(GATE, facts(*cohort), NOW)
    assert decision.verdict == "fail"
    assert {each.device_class for each in decision.findings if each.verdict == "fail"} == {
        "all classes", "class-0", "class-4",
    }  # fmt: skip


def test_the_chance_of_error_is_shared_over_stages_and_classes() -> None:
    two = [board(0, Phase.REFUSED), board(1, Phase.REFUSED)]
    assert judge(GATE, facts(*two, stages=1), NOW).verdict == "fail"
    assert judge(GATE, facts(*two, stages=10), NOW).verdict == "undecided"
    rock = board(2, device_class="rk3588", confirmed=None, phase=Phase.DOWNLOADING)
    shared = judge(GATE, facts(*two, rock, stages=3), NOW - 900)
    assert {round(each.halts_at, 6) for each in shared.findings} == {5.192957}  # log(3 * 3 / 0.05)


def test_silence_counts_from_when_the_board_took_it_up() -> None:
    silent = [board(each, Phase.PROBATION) for each in range(3)]
    assert judge(GATE, facts(*silent), 9_600.0).verdict == "undecided"
    decision = judge(GATE, facts(*silent), 9_601.0)
    assert decision.verdict == "fail"
    assert "cam-000 has been silent for 601 s" in decision.reason
    absent = [board(each, Phase.IDLE, begun=None) for each in range(3)]
    waiting = judge(GATE, facts(*absent, *boards(40)[3:]), 9_590.0)
    assert waiting.verdict == "pass", "boards that were never reached hold nobody up"
    alone = judge(GATE, facts(*absent), NOW)
    assert (alone.verdict, alone.exhausted) == ("undecided", True)


def test_boards_at_work_are_waited_for_before_a_class_is_called_too_small() -> None:
    at_work = judge(GATE, facts(*boards(5), board(6, Phase.SHADOW)), 9_590.0)
    assert (at_work.verdict, at_work.exhausted) == ("undecided", False)


def test_what_could_not_decide_counts_for_neither_side() -> None:
    full = Verdict(code="disk", reason="full", cause="environment")
    others = [board(each, Phase.REFUSED, verdict=full) for each in range(40, 60)]
    assert judge(GATE, facts(*boards(31), *others), NOW).verdict == "pass"
    assert judge(GATE, facts(*boards(30), *others), NOW).exhausted


def test_it_soaks_after_the_boards_that_proved_it() -> None:
    early = judge(GATE, facts(*boards(31)), 9_530.0)
    assert (early.verdict, early.reason) == ("undecided", "31 devices healthy, soaking 30 s more")
    later_ones = [board(each, confirmed=9_999.0) for each in range(31, 90)]
    assert judge(GATE, facts(*boards(31), *later_ones), NOW).verdict == "pass"


def controls(count: int, change: float = 1.0) -> tuple[ControlFacts, ...]:
    return tuple(ControlFacts(f"far-{each}", "orin", change) for each in range(count))


def test_a_slower_class_is_halted_against_boards_that_were_not_reached() -> None:
    slow = boards(12, change=1.3)
    decision = judge(TIMED, facts(*slow, controls=controls(12)), NOW)
    assert decision.verdict == "fail"
    assert "slower: p95 grew by more than 10% on 12 of 12 boards" in decision.reason
    # The whole site got slower: not the release's fault.
    everywhere = judge(TIMED, facts(*slow, controls=controls(12, 1.3)), NOW)
    assert everywhere.verdict != "fail"


def test_frame_times_must_be_proven_too_while_there_is_someone_to_compare_with() -> None:
    steady = boards(40, change=1.0)
    assert judge(TIMED, facts(*steady, controls=controls(40)), NOW).verdict == "pass"
    untold = judge(TIMED, facts(*boards(40), controls=controls(40)), NOW)
    assert untold.verdict == "undecided", "no frame times, no proof"
    nobody = judge(TIMED, facts(*steady), NOW)
    assert nobody.verdict == "pass"
    assert "no board left to compare frame times with" in nobody.reason


def test_agreement_in_shadow_is_held_to_its_floor() -> None:
    gate = replace(GATE, sequential=replace(FAILURES, min_agreement=0.9))
    assert judge(gate, facts(*boards(40, agreement=0.95)), NOW).verdict == "pass"
    decision = judge(gate, facts(*boards(40, agreement=0.85)), NOW)
    assert decision.verdict == "fail"
    assert "40 of 40 boards see less than 90%" in decision.reason


@pytest.mark.parametrize(
    ("limits", "one", "said"),
    [
        (LimitSpec(failed=1), board(0, Phase.REFUSED), "1 devices failed, the limit is 1"),
        (LimitSpec(latency_p95_ms=40), board(0, latency_p95_ms=41.0), "p95 41.0 ms"),
        (LimitSpec(error_share=0.01), board(0, error_share=0.02), "2.0% of frames failed"),
    ],
)
def test_hard_limits_stop_at_once(limits: LimitSpec, one: DeploymentFacts, said: str) -> None:
    for gate in (GATE, GateSpec(max_failure_share=1.0)):
        decision = judge(replace(gate, limits=limits), facts(one, *boards(90)[1:]), NOW)
        assert decision.verdict == "fail"
        assert said in decision.reason


def test_the_limit_itself_is_allowed() -> None:
    limits = LimitSpec(latency_p95_ms=20.0, error_share=0.01)
    at_it = board(0, latency_p95_ms=20.0, error_share=0.01)
    for gate in (GATE, GateSpec(soak_seconds=0)):
        decision = judge(replace(gate, limits=limits), facts(at_it, *boards(90)[1:]), NOW)
        assert decision.verdict == "pass", decision.reason


def test_a_late_rollback_reopens_a_stage_that_was_passed() -> None:
    first = [board(each, Phase.ROLLED_BACK if each < 3 else Phase.CONFIRMED) for each in range(20)]
    second = [board(each, stage=1) for each in range(100, 160)]
    decision = judge(GATE, facts(*first, *second, pools=((0,), (1,)), stages=2), NOW)
    assert decision.verdict == "fail"
    assert decision.reason.startswith("reopened: 17 healthy, 3 failed")


def test_a_widened_stage_is_judged_with_its_follower() -> None:
    assert pools({0: "passed", 1: "widened", 2: "running"}, 2) == ((0,), (1, 2))
    both = [*boards(20), *(board(each, stage=1) for each in range(100, 111))]
    assert judge(GATE, facts(*both, pools=((0, 1),), stages=2), NOW).verdict == "pass"
    alone = judge(GATE, facts(*both, pools=((0,), (1,)), stages=2), NOW)
    assert alone.exhausted


@pytest.mark.parametrize(
    ("wanted", "failing", "approval", "expected"),
    [
        ("hold", 0, False, None),
        ("ask", 0, False, StageEvent.ASK),
        ("widen", 0, False, StageEvent.WIDEN),
        ("widen", 1, False, StageEvent.WIDEN),
        ("widen", 2, False, StageEvent.ASK),
        ("widen", 0, True, StageEvent.ASK),
    ],
)
def test_what_happens_when_a_cohort_is_too_small(
    wanted: str, failing: int, approval: bool, expected: StageEvent | None
) -> None:
    gate = replace(GATE, sequential=replace(FAILURES, on_exhausted=wanted))  # type: ignore[arg-type]
    cohort = [board(each, Phase.REFUSED if each < failing else Phase.CONFIRMED)
              for each in range(5)]  # fmt: skip
    decision = judge(gate, facts(*cohort, stages=10), NOW)
    assert decision.exhausted
    assert step(StageSpec(percent=10, gate=gate, approval=approval), decision) is expected
