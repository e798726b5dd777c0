"""The rollout's machine under anything that may happen, and two schedulers at once."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import Phase as Step
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from kedge_server.errors import ConflictError
from kedge_server.rollouts import evidence, moves, progress
from kedge_server.rollouts.facts import GateFacts
from kedge_server.rollouts.gates import judge as real_judge
from kedge_shared.api import GateSpec, RolloutSpec, SequentialSpec, StageSpec
from kedge_shared.phases import Phase
from kedge_shared.protocol import Verdict
from tests.sim.desk import HARM, OK, Desk

FULL = Verdict(code="disk", reason="full", cause="environment")
PLAIN = GateSpec(soak_seconds=5, silence_seconds=500)
TESTED = GateSpec(
    soak_seconds=5, silence_seconds=500,
    sequential=SequentialSpec(latency_ratio=None, good_share=0.05, bad_share=0.6,
                              on_exhausted="widen"),
)  # fmt: skip


class Killed(BaseException):
    """The process dies."""


class RolloutMachine(RuleBasedStateMachine):
    """Boards, operators and a scheduler that dies, over the real service."""

    def __init__(self) -> None:
        super().__init__()
        self.desk = Desk()
        self.now = 100.0
        self.rollout = ""
        self.assigned: dict[str, float] = {}
        self.states = ["running"]
        self.joined = 0
        self.heard: list[tuple[Any, Phase]] = []

    @initialize(gate=st.sampled_from([PLAIN, TESTED]), approval=st.booleans(),
                devices=st.integers(1, 9))  # fmt: skip
    def begin(self, gate: GateSpec, approval: bool, devices: int) -> None:
        self.desk.publish("1.0", 1)
        for each in range(devices):
            self.desk.enrol(f"cam-{each}")
        stages = (
            StageSpec(percent=20, gate=gate, approval=approval),
            StageSpec(percent=60, gate=gate),
            StageSpec(percent=100, gate=gate),
        )
        self.gate = gate
        spec = RolloutSpec(model="shapes", release="1.0", stages=stages)
        self.rollout = self.desk.create(spec, self.now).id

    @rule(seconds=st.integers(1, 60))
    def time_passes(self, seconds: int) -> None:
        self.now += seconds

    @rule(seconds=st.integers(0, 20))
    def look(self, seconds: int) -> None:
        self.now += seconds
        if self.state() != "paused":
            self.desk.tick(self.now)
            return
        stages, reached, harmed = self.stage_states(), self.reached(), self.harmed()
        self.desk.tick(self.now)
        self.nothing_went_on(stages, reached, harmed)

    def nothing_went_on(self, stages: list[str], reached: set[str], harmed: bool) -> None:
        """A look at a paused rollout reaches nobody and passes nothing, but a failure halts it."""
        assert self.reached() == reached
        if self.state() == "halted":
            assert "failed" in self.stage_states()
            return
        assert self.state() == "paused"
        passed = {"passed", "widened"}
        assert [each in passed for each in self.stage_states()] == [
            each in passed for each in stages
        ]
        is_open = {"running", "asking"} & set(stages)
        assert not (harmed and is_open and self.gate is PLAIN), "a failed gate halts it also paused"

    def reached(self) -> set[str]:
        return {each.device for each in self.deployments() if each.assigned is not None}

    def harmed(self) -> bool:
        ended = {"refused", "rolled_back"}
        return any(each.phase in ended and '"cause":"harm"' in each.verdict
                   for each in self.deployments())  # fmt: skip

    @precondition(lambda self: self.state() == "running")
    @rule(harm=st.booleans())
    def pause_and_look(self, harm: bool) -> None:
        """What a stage has proven, or a board suffers, comes to light while it is paused."""
        reached = [each for each in self.deployments() if each.assigned is not None]
        for row in reached:
            if row.phase == "idle":
                self.desk.say(row, Phase.CONFIRMED, self.now)
        if harm:
            self.desk.say(reached[0], Phase.ROLLED_BACK, self.now, HARM)
        self.desk.change(self.rollout, "pause", self.now)
        self.look(20)

    @rule(at=st.sampled_from(["record", "begin_stage", "keep"]))
    def die_while_looking(self, at: str) -> None:
        """Whatever had been done in that look is not there any more."""
        before = self.picture()
        home: Any = {"record": moves, "begin_stage": progress, "keep": evidence}[at]
        with pytest.MonkeyPatch.context() as patch:

            def die(*_: object) -> None:
                raise Killed

            patch.setattr(home, at, die)
            try:
                self.desk.tick(self.now)
            except Killed:
                assert self.picture() == before

    @rule(which=st.integers(0, 20), phase=st.sampled_from([
        (Phase.DOWNLOADING, OK), (Phase.PROBATION, OK), (Phase.CONFIRMED, OK),
        (Phase.CONFIRMED, OK), (Phase.CONFIRMED, OK), (Phase.REFUSED, HARM),
        (Phase.REFUSED, FULL), (Phase.ROLLED_BACK, HARM),
    ]))  # fmt: skip
    def board_speaks(self, which: int, phase: tuple[Phase, Verdict]) -> None:
        reached = [each for each in self.deployments() if each.assigned is not None]
        row = reached[which % len(reached)]
        self.heard.append((row, phase[0]))
        self.desk.say(row, phase[0], self.now, phase[1])

    @rule(look=st.booleans())
    def everybody_is_healthy(self, look: bool) -> None:
        for row in self.deployments():
            if row.assigned is not None and row.phase == "idle":
                self.desk.say(row, Phase.CONFIRMED, self.now)
        if look:
            self.look(10)

    @precondition(lambda self: self.heard)
    @rule(which=st.integers(0, 20))
    def an_old_report_comes_again(self, which: int) -> None:
        row, phase = self.heard[which % len(self.heard)]
        before = self.picture()
        self.desk.hear(self.desk.report(row, phase, HARM, 0), self.now)
        assert self.picture() == before

    @rule()
    def a_board_joins(self) -> None:
        self.joined += 1
        self.desk.enrol(f"late-{self.joined}", self.now)

    @rule(event=st.sampled_from(["pause", "pause", "resume", "halt", "stop"]))
    def operator_acts(self, event: str) -> None:
        if event in {"halt", "stop"} and len(self.heard) < 6:
            return
        with suppress(ConflictError):
            self.desk.change(self.rollout, event, self.now)

    @rule()
    def operator_says_yes(self) -> None:
        try:
            self.desk.approve(self.rollout, self.now)
        except ConflictError:
            assert self.state() != "running" or "asking" not in self.stage_states()

    def deployments(self) -> list[Any]:
        return sorted(self.desk.deployments(self.rollout), key=lambda each: str(each.device))

    def state(self) -> str:
        return self.desk.rollout(self.rollout).state

    def stage_states(self) -> list[str]:
        return [each.state for each in self.desk.stages(self.rollout)]

    def picture(self) -> object:
        rows = [(each.id, each.stage, each.phase, each.assigned) for each in self.deployments()]
        return self.state(), self.stage_states(), rows, self.desk.told(self.rollout)

    @invariant()
    def nothing_is_doubled(self) -> None:
        devices = [each.device for each in self.deployments()]
        assert len(set(devices)) == len(devices)
        told = self.desk.told(self.rollout)
        over = [each for each in self.stage_states() if each in {"passed", "widened"}]
        steps = told.count("rollout stage_passed") + told.count("rollout last_passed")
        assert steps == len(over)

    @invariant()
    def stages_come_in_order_and_one_at_a_time(self) -> None:
        states = self.stage_states()
        order = {"passed": 0, "widened": 0, "running": 1, "asking": 1, "failed": 1, "waiting": 2}
        ranks = [order[each] for each in states]
        assert ranks == sorted(ranks)
        assert ranks.count(1) <= 1

    @invariant()
    def a_failed_stage_ends_it(self) -> None:
        if "failed" in self.stage_states():
            assert self.state() == "halted"

    @invariant()
    def who_was_reached_stays_reached_and_nobody_after_the_end(self) -> None:
        state = self.state()
        now = {each.id: each.assigned for each in self.deployments() if each.assigned is not None}
        for deployment, at in self.assigned.items():
            assert now[deployment] == at
        if self.states[-1] in {"halted", "stopped"} and state == self.states[-1]:
            assert set(now) == set(self.assigned), "nobody is reached after the end"
        self.assigned = now
        if state != self.states[-1]:
            ends = {"halted": set(), "completed": {"halted"}, "stopped": {"halted"}}
            anything = {"running", "paused", "completed", "halted", "stopped"}
            assert state in ends.get(self.states[-1], anything)
            self.states.append(state)

    @invariant()
    def a_completed_rollout_has_no_failure_it_does_not_bear(self) -> None:
        if self.state() == "completed" and self.gate is PLAIN:
            assert all(
                each.verdict != HARM or each.phase not in {"refused", "rolled_back"}
                for each in self.deployments()
            )
            assert not [each for each in self.deployments() if '"cause":"harm"' in each.verdict]

    @invariant()
    def every_decision_comes_out_the_same_again(self) -> None:
        with self.desk.session() as session:
            assert all(each.same for each in evidence.replay(session, self.rollout))


RolloutMachine.TestCase.settings = settings(
    max_examples=60, stateful_step_count=30, deadline=None,
    # Shrinking a machine over a database takes minutes; what fails is told in full as it is.
    phases=(Step.explicit, Step.reuse, Step.generate),
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)  # fmt: skip
TestRolloutMachine = RolloutMachine.TestCase


def two_stages(desk: Desk, gate: GateSpec = PLAIN, **first: Any) -> str:
    desk.publish("1.0", 1)
    for each in range(5):
        desk.enrol(f"cam-{each}")
    stages = (StageSpec(percent=20, gate=gate, **first), StageSpec(percent=100, gate=gate))
    return desk.create(RolloutSpec(model="shapes", release="1.0", stages=stages), 0).id


def all_healthy(desk: Desk, rollout: str, now: float) -> None:
    for row in desk.deployments(rollout):
        if row.assigned is not None and row.phase != "confirmed":
            desk.say(row, Phase.CONFIRMED, now)


def test_two_schedulers_at_once_advance_a_stage_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk = Desk(tmp_path)
    rollout = two_stages(desk)
    all_healthy(desk, rollout, 1)
    raced = []

    def judge(gate: GateSpec, facts: GateFacts, now: float) -> object:
        """The other one is a whole look faster, between this one's reading and its writing."""
        if not raced:
            raced.append(True)
            assert desk.tick(now)
            assert [each.state for each in desk.stages(rollout)] == ["passed", "running"]
        return real_judge(gate, facts, now + 7)

    monkeypatch.setattr(progress, "judge", judge)
    desk.tick(10)
    assert raced
    assert [each.state for each in desk.stages(rollout)] == ["passed", "running"]
    assert desk.told(rollout).count("rollout stage_passed") == 1
    assert {each.assigned for each in desk.deployments(rollout) if each.stage == 1} == {10}


def test_a_board_that_rolls_back_between_look_and_move_is_not_overlooked(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    rollout = two_stages(desk)
    all_healthy(desk, rollout, 1)
    desk.tick(10)
    canary = next(each for each in desk.deployments(rollout) if each.stage == 0)
    desk.say(canary, Phase.ROLLED_BACK, 11, HARM)
    desk.tick(12)
    assert desk.rollout(rollout).state == "halted"
    assert desk.tick(1000) is False
    assert [each.state for each in desk.stages(rollout)] == ["passed", "failed"]


def test_a_stage_that_wants_approval_asks_and_goes_on_when_told(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    rollout = two_stages(desk, approval=True)
    all_healthy(desk, rollout, 1)
    desk.tick(10)
    desk.tick(20)
    assert [each.state for each in desk.stages(rollout)] == ["asking", "waiting"]
    assert desk.approve(rollout, 30).stages[0].state == "passed"
    assert desk.stages(rollout)[0].approved_by == "operator"
    with pytest.raises(ConflictError, match="asks for nothing"):
        desk.approve(rollout, 31)


def test_a_stopped_rollout_leaves_its_boards_what_they_have_until_one_fails(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    rollout = two_stages(desk)
    all_healthy(desk, rollout, 1)
    assert desk.change(rollout, "stop", 5).state == "stopped"
    assert desk.tick(100) is False
    canary = next(each for each in desk.deployments(rollout) if each.stage == 0)
    desk.say(canary, Phase.ROLLED_BACK, 110, HARM)
    assert desk.rollout(rollout).state == "halted"


def test_a_paused_rollout_passes_nothing_and_reaches_nobody(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    rollout = two_stages(desk)
    all_healthy(desk, rollout, 1)
    desk.change(rollout, "pause", 2)
    for now in (10, 100, 1000):
        desk.tick(now)
        assert desk.rollout(rollout).state == "paused"
        assert [each.state for each in desk.stages(rollout)] == ["running", "waiting"]
        assert sum(each.assigned is not None for each in desk.deployments(rollout)) == 1
    desk.change(rollout, "resume", 1001)
    assert desk.tick(1002)
    assert [each.state for each in desk.stages(rollout)] == ["passed", "running"]
    assert desk.told(rollout).count("rollout stage_passed") == 1


def test_a_gate_that_fails_halts_a_paused_rollout(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    rollout = two_stages(desk)
    (canary,) = [each for each in desk.deployments(rollout) if each.assigned is not None]
    desk.change(rollout, "pause", 2)
    desk.say(canary, Phase.ROLLED_BACK, 3, HARM)
    desk.tick(4)
    assert desk.rollout(rollout).state == "halted"
    assert [each.state for each in desk.stages(rollout)] == ["failed", "waiting"]
    assert "rollout gate_failed" in desk.told(rollout)
    with pytest.raises(ConflictError):
        desk.change(rollout, "resume", 5)


def test_evidence_that_was_altered_is_told_apart(tmp_path: Path) -> None:
    import zlib

    desk = Desk(tmp_path)
    rollout = two_stages(desk)
    all_healthy(desk, rollout, 1)
    desk.tick(10)
    with desk.session() as session:
        (kept,) = evidence.decisions(session, rollout)
        assert evidence.replay(session, rollout)[0].same
        body = zlib.decompress(kept.evidence).replace(b':"confirmed"', b':"probation"')
        assert body != zlib.decompress(kept.evidence)
        kept.evidence = zlib.compress(body)
        session.add(kept)
        session.flush()
        found = evidence.replay(session, rollout)[0]
        assert (found.verdict, found.again, found.same) == ("pass", "undecided", False)
