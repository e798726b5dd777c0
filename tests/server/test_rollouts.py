"""Staged rollouts through the real server with simulated boards."""

from __future__ import annotations

from dataclasses import replace

import pytest

from kedge_shared import histogram
from kedge_shared.api import GateSpec, RolloutSpec, SequentialSpec, StageSpec
from kedge_shared.errors import ServiceError
from kedge_shared.phases import Phase
from kedge_shared.protocol import Verdict, Window
from tests.server.both import database  # noqa: F401
from tests.shared import samples
from tests.sim.device import HARM, SimDevice
from tests.sim.world import World


def fleet_of(world: World, count: int) -> list[SimDevice]:
    return [world.enrol(f"cam-{each}") for each in range(count)]


def live(world: World, fleet: list[SimDevice], rounds: int = 1) -> None:
    for _ in range(rounds):
        for each in fleet:
            each.live()
        world.tick()


def on(fleet: list[SimDevice], release: str) -> int:
    return sum(1 for each in fleet if each.release == release)


def begun(world: World, count: int = 5) -> list[SimDevice]:
    """A fleet that runs 1.0."""
    fleet = fleet_of(world, count)
    world.publish("1.0", 10)
    world.roll_out("1.0")
    live(world, fleet, 2)
    assert on(fleet, "1.0") == count
    return fleet


def test_a_release_goes_stage_by_stage(running: World) -> None:
    fleet = begun(running)
    running.publish("1.1", 11)
    rollout = running.roll_out("1.1", 20, 100)
    for each in fleet:
        each.live()
    assert on(fleet, "1.1") == 1, "only the canary"
    for each in fleet:
        each.live()
    assert on(fleet, "1.1") == 1, "not before the gate was looked at"
    running.tick()
    live(running, fleet)
    assert on(fleet, "1.1") == 5
    done = running.operator.rollout(rollout.id)
    assert done.state == "completed"
    assert [each.state for each in done.stages] == ["passed", "passed"]
    assert [each.devices for each in done.stages] == [1, 5]


def test_a_bad_release_is_halted_at_the_canary_and_taken_back(running: World) -> None:
    fleet = begun(running)
    for each in fleet:
        each.refuses = lambda path: "/1.1/" in path
    running.publish("1.1", 11)
    rollout = running.roll_out("1.1", 20, 100)
    live(running, fleet, 3)
    halted = running.operator.rollout(rollout.id)
    assert halted.state == "halted"
    assert "accuracy, worse" in halted.reason
    assert [each.state for each in halted.stages] == ["failed", "waiting"]
    (only,) = running.operator.rollout_deployments(rollout.id)
    assert (only.phase, only.verdict.code) == (Phase.REFUSED, "accuracy")
    canary = next(each for each in fleet if each.name == only.device)
    assert canary.assignment is not None
    assert canary.assignment.intent == "revert"
    assert canary.assignment.manifest is not None
    assert "/1.0/" in canary.assignment.manifest.path
    assert on(fleet, "1.0") == 5


def test_a_late_rollback_reopens_a_passed_gate(running: World) -> None:
    fleet = begun(running)
    running.publish("1.1", 11)
    rollout = running.roll_out("1.1", 20, 100)
    live(running, fleet, 3)
    assert running.operator.rollout(rollout.id).state == "completed"
    fleet[3].send(fleet[3].report(Phase.ROLLED_BACK, HARM))
    halted = running.operator.rollout(rollout.id)
    assert halted.state == "halted"
    live(running, fleet, 2)
    assert on(fleet, "1.0") == 5, "everyone goes back"


def test_a_rollback_while_the_next_stage_runs_halts_it(running: World) -> None:
    fleet = begun(running)
    running.publish("1.1", 11)
    rollout = running.roll_out("1.1", 20, 60, 100)
    live(running, fleet, 1)
    canary = next(each for each in fleet if each.release == "1.1")
    canary.send(canary.report(Phase.ROLLED_BACK, HARM))
    running.tick()
    assert running.operator.rollout(rollout.id).state == "halted"


def test_silence_after_assignment_halts(running: World) -> None:
    fleet = begun(running, 2)
    running.publish("1.1", 11)
    rollout = running.roll_out("1.1", 100, silence_seconds=600)
    fleet[0].poll()
    fleet[0].send(fleet[0].report(Phase.PROBATION))
    running.tick()
    assert running.operator.rollout(rollout.id).state == "running"
    running.let_pass(601)
    running.tick()
    halted = running.operator.rollout(rollout.id)
    assert halted.state == "halted"
    assert "silent" in halted.reason
    assert all(each.silent for each in running.operator.rollout_deployments(rollout.id))


def test_environment_is_no_failure_and_no_success(running: World) -> None:
    fleet = begun(running, 1)
    running.publish("1.1", 11)
    rollout = running.roll_out("1.1", 100)
    fleet[0].poll()
    full = Verdict(code="disk", reason="disk is full", cause="environment")
    fleet[0].send(fleet[0].report(Phase.REFUSED, full))
    running.tick()
    stage = running.operator.rollout(rollout.id).stages[0]
    assert (stage.verdict, stage.undecided) == ("undecided", 1)
    assert running.operator.rollout(rollout.id).state == "running"


def test_pause_stops_the_stages_and_resume_goes_on(running: World) -> None:
    fleet = begun(running)
    running.publish("1.1", 11)
    rollout = running.roll_out("1.1", 20, 100)
    running.operator.change_rollout(rollout.id, "pause")
    live(running, fleet, 3)
    assert on(fleet, "1.1") == 1
    running.operator.change_rollout(rollout.id, "resume")
    live(running, fleet, 3)
    assert on(fleet, "1.1") == 5


def test_a_paused_rollout_still_halts_on_harm(running: World) -> None:
    fleet = begun(running)
    running.publish("1.1", 11)
    rollout = running.roll_out("1.1", 20, 100)
    running.operator.change_rollout(rollout.id, "pause")
    for each in fleet:
        each.refuses = lambda path: "/1.1/" in path
    live(running, fleet, 1)
    assert running.operator.rollout(rollout.id).state == "halted"


def test_the_operator_halts_and_the_fleet_goes_back(running: World) -> None:
    fleet = begun(running)
    running.publish("1.1", 11)
    rollout = running.roll_out("1.1", 20, 100)
    live(running, fleet, 3)
    running.operator.change_rollout(rollout.id, "halt")
    live(running, fleet, 1)
    assert on(fleet, "1.0") == 5
    with pytest.raises(ServiceError, match="cannot resume"):
        running.operator.change_rollout(rollout.id, "resume")


def test_an_older_release_needs_a_recall(running: World) -> None:
    fleet = begun(running)
    running.publish("1.1", 11)
    running.roll_out("1.1")
    live(running, fleet, 2)
    with pytest.raises(ServiceError, match="older than 1.1"):
        running.roll_out("1.0")
    running.operator.create_rollout(
        RolloutSpec(model="shapes", release="1.0", stages=(StageSpec(percent=100),), recall=True)
    )
    fleet[0].poll()
    assert fleet[0].assignment is not None
    assert fleet[0].assignment.intent == "revert"
    live(running, fleet, 2)
    assert on(fleet, "1.0") == 5


def test_one_open_rollout_a_model(running: World) -> None:
    begun(running)
    running.publish("1.1", 11)
    first = running.roll_out("1.1", 20, 100)
    running.publish("1.2", 12)
    with pytest.raises(ServiceError, match=first.id):
        running.roll_out("1.2")


def test_a_board_that_joins_late_gets_what_the_fleet_runs(running: World) -> None:
    begun(running)
    late = running.enrol("late")
    late.live()
    assert late.release == "1.0"


def test_boards_that_cannot_take_a_build_are_left_alone(running: World) -> None:
    fleet = begun(running, 2)
    other = running.enrol("vino", "x86-openvino")
    running.publish("1.1", 11)
    rollout = running.roll_out("1.1")
    live(running, [*fleet, other], 2)
    assert other.assignment is None
    assert running.operator.rollout(rollout.id).stages[-1].devices == 2


@pytest.mark.parametrize("percents", [(100, 20), (20, 20)])
def test_stages_must_grow(running: World, percents: tuple[float, ...]) -> None:
    begun(running, 1)
    running.publish("1.1", 11)
    with pytest.raises(ServiceError, match="grow"):
        running.roll_out("1.1", *percents)


def test_an_unknown_release_or_an_empty_fleet_is_said(running: World) -> None:
    with pytest.raises(ServiceError, match="no release"):
        running.roll_out("9.9")
    running.publish("1.0", 10)
    with pytest.raises(ServiceError, match="no device is enrolled"):
        running.roll_out("1.0")


def test_every_step_is_in_the_audit_log(running: World) -> None:
    fleet = begun(running, 1)
    fleet[0].refuses = lambda path: "/1.1/" in path
    running.publish("1.1", 11)
    rollout = running.roll_out("1.1")
    live(running, fleet, 1)
    rows = running.operator.http.get("/api/v1/audit").json()
    told = [each["action"] for each in rows if each["subject"] == rollout.id]
    assert sorted(told) == ["rollout create", "rollout gate_failed"]


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"max_failure_share": 7.0}, "max_failure_share"),
        ({"max_failure_share": float("nan")}, "max_failure_share"),
        ({"soak_seconds": -1.0}, "soak_seconds"),
        ({"silence_seconds": 0.0}, "silence_seconds"),
        ({"min_healthy": 0}, "min_healthy"),
    ],
)
def test_gates_are_asked_for_in_bounds(
    running: World, changes: dict[str, float], field: str
) -> None:
    begun(running, 1)
    running.publish("1.1", 11)
    with pytest.raises(ServiceError, match=f"body cannot be read: .*{field}") as refused:
        running.roll_out("1.1", 100, **changes)
    assert refused.value.status == 422
    assert len(running.operator.rollouts()) == 1, "what cannot be read back must not be stored"


def test_every_body_of_an_operator_is_held_to_its_bounds(running: World) -> None:
    http = running.operator.http
    paths = http.get("/openapi.json").json()["paths"]
    asked = [
        path
        for path, methods in paths.items()
        for each in methods.values()
        if "$ref" in str(each.get("requestBody", {}))
    ]
    assert sorted(asked) == [
        "/api/v1/announced-keys", "/api/v1/device-tags", "/api/v1/enrolment-tokens",
        "/api/v1/rollouts", "/api/v1/rollouts/plan", "/api/v1/session", "/api/v1/tokens",
        "/api/v1/users",
        "/api/v1/users/{user}/change", "/api/v1/users/{user}/password", "/api/v1/webhooks",
    ]  # fmt: skip
    for path in asked:
        assert http.post(path, content=b'{"model":"' + b"x" * 100_000).status_code == 413
        answer = http.post(path, json={"model": "/", "count": 0, "stages": [], "roles": ""})
        assert (answer.status_code, answer.json()["error"][:19]) == (422, "body cannot be read")


def test_a_recall_with_a_silent_board_is_completed_and_says_so(running: World) -> None:
    fleet = begun(running, 3)
    running.publish("1.1", 11)
    running.roll_out("1.1")
    live(running, fleet, 2)
    gate = GateSpec(max_failure_share=1.0, soak_seconds=0, silence_seconds=600)
    stage = StageSpec(percent=100, gate=gate)
    spec = RolloutSpec(model="shapes", release="1.0", stages=(stage,), recall=True)
    recall = running.operator.create_rollout(spec)
    live(running, fleet[:2], 2)
    running.let_pass(601)
    running.tick()
    done = running.operator.rollout(recall.id)
    assert done.state == "completed"
    assert done.reason.startswith("2 of 3 devices healthy, 1 failed; cam-2 has been silent")
    live(running, fleet[2:], 2)
    assert on(fleet, "1.0") == 3, "it comes back and is taken along"


def window(p95_ms: float) -> Window:
    return Window(started=0, seconds=60, frames=100, latency_ms=histogram.of([p95_ms] * 100))


def test_frame_times_of_boards_and_of_those_not_reached_find_their_way_to_the_gate(
    running: World,
) -> None:
    fleet = begun(running, 30)
    for each in fleet:
        each.send(each.report(Phase.CONFIRMED, window=window(20)))
    running.publish("1.1", 11)
    test = SequentialSpec(latency_ratio=1.1, on_exhausted="ask")
    gate = GateSpec(soak_seconds=0, sequential=test)
    stages = (StageSpec(percent=50, gate=gate), StageSpec(percent=100, gate=gate))
    rollout = running.operator.create_rollout(
        RolloutSpec(model="shapes", release="1.1", stages=stages)
    )
    for each in fleet:
        each.live()
    for each in fleet:
        slower = 26 if each.release == "1.1" else 20
        each.send(each.report(Phase.CONFIRMED, window=window(slower)))
    running.tick()
    halted = running.operator.rollout(rollout.id)
    assert halted.state == "halted"
    assert "p95 grew by more than 10% on 15 of 15 boards" in halted.reason
    (decision,) = running.operator.replay_rollout(rollout.id)
    assert (decision.verdict, decision.again, decision.same) == ("fail", "fail", True)
    assert decision.devices == 15


def test_an_undecided_stage_asks_and_is_approved_over_http(running: World) -> None:
    fleet = begun(running, 4)
    running.publish("1.1", 11)
    gate = GateSpec(soak_seconds=0, sequential=SequentialSpec(latency_ratio=None))
    stages = (StageSpec(percent=50, gate=gate), StageSpec(percent=100, gate=gate))
    spec = RolloutSpec(model="shapes", release="1.1", stages=stages)
    plan = running.operator.plan_rollout(spec)
    rollout = running.operator.create_rollout(spec)
    live(running, fleet, 3)
    stage = running.operator.rollout(rollout.id).stages[0]
    assert (stage.state, stage.verdict) == ("asking", "undecided")
    assert "too few to tell 1% from 10%, 31 clean ones would" in stage.reason
    assert {each.name for each in fleet if each.release == "1.1"} == set(plan.stages[0].devices)
    running.operator.change_rollout(rollout.id, "approve")
    with pytest.raises(ServiceError, match="asks for nothing"):
        running.operator.change_rollout(rollout.id, "approve")
    live(running, fleet, 1)
    assert on(fleet, "1.1") == 4


def test_a_retried_board_is_told_that_it_is_a_retry(running: World) -> None:
    fleet = begun(running, 2)
    running.publish("1.1", 11)
    rollout = running.roll_out("1.1", max_failure_share=1.0)
    fleet[0].poll()
    first = fleet[0].assignment
    assert first is not None
    fleet[0].send(fleet[0].report(Phase.REFUSED, HARM))
    running.operator.change_rollout(rollout.id, "retry")
    fleet[0].poll()
    again = fleet[0].assignment
    assert again is not None
    assert again.retry_of == first.deployment
    assert again.deployment != first.deployment
    assert again.counter > first.counter


def test_a_board_that_was_upgraded_gets_what_did_not_fit_it_before(running: World) -> None:
    begun(running, 2)
    old = samples.facts()
    behind = running.enrol("cam-9", facts=replace(old, runtimes={"onnxruntime": "0.9"}))
    live(running, [behind], 2)
    assert behind.assignment is None
    behind.send(behind.report(Phase.IDLE, facts=old))
    live(running, [behind], 2)
    assert behind.release == "1.0"
    assert running.operator.device(behind.name).facts == old
    told = running.operator.http.get("/api/v1/events/recent").json()
    assert [each["subject"] for each in told if each["kind"] == "device.changed"] == [behind.name]
    # Told again, nothing has changed.
    behind.send(behind.report(Phase.IDLE, facts=old))
    again = running.operator.http.get("/api/v1/events/recent").json()
    assert sum(each["kind"] == "device.changed" for each in again) == 1
