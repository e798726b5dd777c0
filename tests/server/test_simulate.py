"""The simulated gate is the real one, and its table says what it promises."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from kedge_server.rollouts.facts import DeploymentFacts, GateFacts
from kedge_server.rollouts.gates import judge
from kedge_server.rollouts.simulate import kedge, peers, power
from kedge_server.rollouts.simulate.fleet import (
    ABSENT,
    FAILED,
    HEALTHY,
    Fleet,
    FleetModel,
    class_sizes,
    draw,
)
from kedge_server.rollouts.stages import StageEvent, pools, step
from kedge_shared.api import GateSpec, SequentialSpec, StageSpec
from kedge_shared.phases import Phase
from kedge_shared.protocol import Verdict

SPEC = SequentialSpec(latency_ratio=None, on_exhausted="widen")
LOOK_SECONDS = 20.0


def known_facts(fleet: Fleet, starts: list[float], now: float) -> GateFacts:
    """What the server would know at ``now``."""
    cohort = []
    for at in range(len(fleet.outcome)):
        stage = int(fleet.stage[at])
        if stage >= len(starts):
            continue
        begins, known = starts[stage] + fleet.begins[at], starts[stage] + fleet.known[at]
        phase, cause, confirmed = Phase.PROBATION, None, None
        if known <= now and fleet.outcome[at] != ABSENT:
            # A hang shows as a failure when the silence is over; here it is told as one.
            phase = Phase.CONFIRMED if fleet.outcome[at] == HEALTHY else Phase.ROLLED_BACK
            cause = "harm" if fleet.outcome[at] == FAILED else "undecided"
            confirmed = float(known) if phase is Phase.CONFIRMED else None
        took = begins <= now
        cohort.append(
            DeploymentFacts(
                device=f"{at:05d}", phase=phase if took else Phase.IDLE,
                verdict=Verdict(code="ok", cause=cause),  # type: ignore[arg-type]
                assigned=starts[stage], confirmed=confirmed,
                device_class=fleet.classes[fleet.of_class[at]], stage=stage,
                begun=float(begins) if took else None,
            )
        )  # fmt: skip
    return GateFacts(tuple(cohort), stages=len(fleet.model.percents))


def real_course(fleet: Fleet) -> tuple[str, int]:
    """Returns how the real gate, asked again and again, ends it, and in which stage."""
    # No look falls between a board's last word and its silence.
    silence = fleet.model.spread_seconds + fleet.model.silence_seconds
    soak = fleet.model.soak_seconds
    gate = GateSpec(soak_seconds=soak, sequential=SPEC, silence_seconds=silence)
    starts, states, now = [0.0], {0: "running"}, 0.0
    while True:
        now += LOOK_SECONDS
        at = len(starts) - 1
        facts = replace(known_facts(fleet, starts, now), pools=pools(states, at))
        event = step(StageSpec(percent=100, gate=gate), judge(gate, facts, now))
        if event in {StageEvent.FAIL, StageEvent.ASK}:
            return event.value, at
        if event in {StageEvent.PASS, StageEvent.WIDEN}:
            states[at] = "passed" if event is StageEvent.PASS else "widened"
            if at + 1 == len(fleet.model.percents):
                return "done", at
            starts.append(now)
            states[at + 1] = "running"


@pytest.mark.parametrize("seed", range(12))
def test_the_simulated_gate_ends_as_the_real_one(seed: int) -> None:
    rates = {"orin": 0.02, "rk3588": [0.02, 0.3, 0.12][seed % 3]}
    model = FleetModel(
        [20, 60, 120][seed % 3 - 1], {"orin": 0.7, "rk3588": 0.3}, rates, percents=(10, 40, 100),
        spread_seconds=900.0, proof_seconds=300.0, quick_seconds=100.0, soak_seconds=100.0,
        absent=0.05, hanging=0.0, silence_seconds=1200.0,
    )  # fmt: skip
    fleet = draw(model, np.random.default_rng(seed))
    course = kedge.run(fleet, SPEC)
    # A failure that shows after the last stage has passed is a late rollback, for both.
    late = math.isfinite(course.stopped) and not course.asked
    ended = "ask" if course.asked else "fail" if math.isfinite(course.stopped) else "done"
    found, stage = real_course(fleet)
    assert (found, stage) == (ended, len(course.starts) - 1) or (late and found == "done")


def test_a_good_release_is_hardly_ever_stopped_and_a_bad_one_always() -> None:
    rows = {
        each.scenario: each
        for each in power.table(2_000, 120, SPEC) if each.rule == power.KEDGE
    }  # fmt: skip
    assert rows["good"].stopped <= 0.10
    assert rows["bad everywhere"].stopped == 1
    assert rows["bad on rk3588"].stopped == 1
    assert rows["bad everywhere"].bad_exposed < 10, "of 200 that would fail"


def test_peers_are_given_settings_that_halt_as_few_good_releases() -> None:
    rows = power.table(300, 60, SPEC)
    most = next(each.stopped for each in rows if each.rule == power.KEDGE)
    for each in rows:
        if each.scenario == "good":
            assert each.stopped <= most + 0.01 or not each.tuned, each


def test_each_class_has_a_board_and_no_board_is_lost() -> None:
    assert class_sizes(10, {"a": 0.5, "b": 0.45, "c": 0.05}) == {"a": 5, "b": 4, "c": 1}
    fleet = draw(FleetModel(1000, power.SHARES, dict.fromkeys(power.SHARES, 0.1)),
                 np.random.default_rng(1))  # fmt: skip
    assert len(fleet.outcome) == 1000
    assert [int((fleet.stage <= each).sum()) for each in range(3)] == [50, 250, 1000]


def test_a_peer_halts_at_the_failure_that_is_one_too_many() -> None:
    known = np.array([10.0, 20.0, 30.0, 40.0])
    outcome = np.array([FAILED, HEALTHY, FAILED, HEALTHY])
    group = peers.Group(known, outcome, np.zeros(4, dtype=np.int64), controls=10)
    assert peers.above(0.25)(group) == 30.0
    assert peers.above(0.5)(group) == math.inf
    assert peers.argo(0.4, 0)(group) == peers.ARGO_SECONDS
    assert peers.mann_whitney(0.05)(group) == peers.KAYENTA_SECONDS
