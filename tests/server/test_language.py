"""What operators can ask for: who gets what, in which order, how often, for how long."""

from __future__ import annotations

from pathlib import Path

import pytest

from kedge_server.devices.assignments import claims_of
from kedge_server.errors import ConflictError, MalformedError
from kedge_server.operator.rollout_file import read_rollout
from kedge_server.rollouts import service
from kedge_server.rollouts.faults import faults
from kedge_shared.api import GateSpec, RetrySpec, RolloutSpec, SequentialSpec, StageSpec
from kedge_shared.errors import InputError
from kedge_shared.phases import Phase
from kedge_shared.protocol import Verdict
from tests.sim.desk import HARM, Desk

GATE = GateSpec(soak_seconds=5, silence_seconds=5_000, max_failure_share=0.5)
FULL = Verdict(code="disk", reason="full", cause="environment")
ALL = (StageSpec(percent=100, gate=GATE),)


def spec(*stages: StageSpec, **fields: object) -> RolloutSpec:
    given: dict[str, object] = {"model": "shapes", "release": "1.0", "stages": stages or ALL}
    return RolloutSpec(**(given | fields))  # type: ignore[arg-type]


@pytest.fixture
def desk() -> Desk:
    """Six boards of one class, two in the lab, three in the north; four of another."""
    found = Desk()
    found.publish("1.0", 1, "x86-onnxruntime", "x86-openvino")
    for each in range(6):
        tags = {"site": "north" if each in {0, 2, 3} else "south"} | ({"lab": "yes"} if each < 2
                                                                      else {})  # fmt: skip
        found.enrol(f"cam-{each}", tags=tags)
    for each in range(4):
        found.enrol(f"vino-{each}", device_class="x86-openvino", tags={"site": "south"})
    return found


def reached(desk: Desk, rollout: str) -> set[str]:
    return {each.device for each in desk.deployments(rollout) if each.assigned is not None}


def healthy(desk: Desk, rollout: str, now: float) -> None:
    for row in desk.deployments(rollout):
        if row.assigned is not None and row.phase == "idle":
            desk.say(row, Phase.CONFIRMED, now)


def planned(desk: Desk, asked: RolloutSpec) -> list[set[str]]:
    with desk.session() as session:
        return [set(each.devices) for each in service.plan(session, asked).stages]


def test_a_selector_chooses_the_boards_and_the_dry_run_says_why_not_the_others(desk: Desk) -> None:
    asked = spec(selector="tag.site==north")
    with desk.session() as session:
        plan = service.plan(session, asked)
    assert plan.stages[0].devices == ("cam-0", "cam-2", "cam-3")
    assert plan.skipped["cam-1"] == "not selected by tag.site==north"
    assert len(plan.skipped) == 7
    assert reached(desk, desk.create(asked).id) == {"cam-0", "cam-2", "cam-3"}


def test_a_dry_run_shows_the_very_boards_and_changes_nothing(desk: Desk) -> None:
    asked = spec(StageSpec(percent=20, gate=GATE), StageSpec(percent=100, gate=GATE))
    expected = planned(desk, asked)
    with desk.session() as session:
        assert service.all_rollouts(session, 0) == []
    rollout = desk.create(asked).id
    drawn = [{each.device for each in desk.deployments(rollout) if each.stage == stage}
             for stage in range(2)]  # fmt: skip
    assert drawn == expected


def test_the_dry_run_tells_which_class_is_too_small_to_decide(desk: Desk) -> None:
    gate = GateSpec(sequential=SequentialSpec())
    with desk.session() as session:
        plan = service.plan(session, spec(StageSpec(percent=100, gate=gate, approval=True)))
    assert plan.stages[0].classes == {"x86-onnxruntime": 6, "x86-openvino": 4}
    notes = plan.stages[0].notes
    assert "x86-openvino: 4 boards cannot decide, 31 clean ones can: asks" in notes
    assert "waits for a person (`kedge rollout approve`)" in notes


def test_stages_by_selector_and_by_count(desk: Desk) -> None:
    asked = spec(
        StageSpec(selector="tag.lab==yes", gate=GATE),
        StageSpec(count=3, gate=GATE),
        StageSpec(percent=100, gate=GATE),
    )
    lab, three, rest = planned(desk, asked)
    assert lab == {"cam-0", "cam-1"}
    assert sorted(each[:3] for each in three) == ["cam", "vin", "vin", "vin"]
    assert len(rest) == 4


def test_the_boards_of_least_risk_come_first(desk: Desk) -> None:
    asked = spec(
        StageSpec(percent=50, gate=GATE), StageSpec(percent=100, gate=GATE),
        order=("tag.lab==yes", "tag.site==north"),
    )  # fmt: skip
    first, _ = planned(desk, asked)
    assert {"cam-0", "cam-1"} < first
    assert first & {"cam-2", "cam-3"}, "the third of the class is of the next order"


def test_a_board_that_joins_is_taken_into_the_open_rollout(desk: Desk) -> None:
    asked = spec(StageSpec(count=2, gate=GATE), StageSpec(percent=100, gate=GATE),
                 selector="class==x86-onnxruntime")  # fmt: skip
    rollout = desk.create(asked, 0).id
    desk.enrol("late", 10)
    desk.enrol("other", 10, device_class="x86-openvino")
    by_name = {each.device: each for each in desk.deployments(rollout)}
    assert by_name["late"].stage == 1
    assert "other" not in by_name
    assert desk.info(rollout).stages[1].devices == 7
    healthy(desk, rollout, 20)
    desk.tick(30)
    assert "late" in reached(desk, rollout)


def test_a_growing_class_gets_a_larger_canary(desk: Desk) -> None:
    asked = spec(StageSpec(percent=20, gate=GATE), StageSpec(percent=100, gate=GATE),
                 selector="class==x86-openvino")  # fmt: skip
    rollout = desk.create(asked, 0).id
    for each in range(2):
        desk.enrol(f"late-{each}", 10, device_class="x86-openvino")
    desk.tick(20)
    assert len(reached(desk, rollout)) == 2, "20 % of six are two"


def test_the_higher_priority_has_a_board_of_two_rollouts(desk: Desk) -> None:
    desk.publish("1.1", 2)
    first = desk.create(spec(selector="class==x86-onnxruntime"), 0).id
    with pytest.raises(ConflictError, match=f"rollout {first} is running on it, with priority 0"):
        desk.create(spec(release="1.1"), 1)
    urgent = desk.create(spec(release="1.1", selector="tag.site==north", priority=5), 2).id
    assert reached(desk, urgent) == {"cam-0", "cam-2", "cam-3"}
    lost = {each.device: each for each in desk.deployments(first)}
    assert lost["cam-0"].phase == "refused"
    assert '"code":"superseded"' in lost["cam-0"].verdict
    with desk.session() as session:
        claims = claims_of(session, ["cam-0"])["cam-0"]
    assert len(claims) == 2
    stage = desk.info(first, 3).stages[0]
    assert (stage.undecided, stage.pending) == (3, 3), "neither for nor against the lower one"


def test_no_more_boards_than_the_blast_radius_are_unproven(desk: Desk) -> None:
    rollout = desk.create(spec(blast_radius=3), 0).id
    seen = [len(reached(desk, rollout))]
    for now in range(10, 60, 10):
        healthy(desk, rollout, now)
        desk.tick(now)
        seen.append(len(reached(desk, rollout)))
    assert seen == [3, 6, 9, 10, 10, 10]
    assert desk.rollout(rollout).state == "completed"


def test_a_failed_board_stays_in_the_blast_radius(desk: Desk) -> None:
    rollout = desk.create(spec(blast_radius=1), 0).id
    (row,) = [each for each in desk.deployments(rollout) if each.assigned is not None]
    desk.say(row, Phase.REFUSED, 1, FULL)
    desk.tick(10)
    assert len(reached(desk, rollout)) == 1
    assert "9 boards wait for the blast radius" in desk.info(rollout).stages[0].reason


def test_the_deadline_stops_it_and_boards_keep_what_they_have(desk: Desk) -> None:
    rollout = desk.create(spec(deadline_hours=1), 0).id
    healthy(desk, rollout, 10)
    assert desk.tick(3_600)
    assert desk.rollout(rollout).state == "completed"
    desk.publish("1.1", 2)
    slow = desk.create(spec(release="1.1", deadline_hours=1), 4_000).id
    desk.tick(7_600)
    assert desk.rollout(slow).state == "running"
    desk.tick(7_601)
    assert (desk.rollout(slow).state, desk.rollout(slow).reason) == (
        "stopped", "the deadline of 1 h is over",
    )  # fmt: skip


def test_a_board_that_could_not_decide_is_tried_again_with_backoff(desk: Desk) -> None:
    retry = RetrySpec(limit=3, backoff_seconds=100)
    rollout = desk.create(spec(retry=retry, selector="name==cam-0"), 0).id
    attempts = []
    for now in (10, 109, 110, 309, 310, 1_000, 2_000):
        newest = next(each for each in desk.deployments(rollout) if each.retried_by is None)
        if newest.phase == "idle":
            desk.say(newest, Phase.REFUSED, now, FULL)
        desk.tick(now)
        newest = next(each for each in desk.deployments(rollout) if each.retried_by is None)
        attempts.append(newest.attempt)
    # 100 s after the first end, 200 s after the second, and no fourth.
    assert attempts == [1, 1, 2, 2, 2, 3, 3]
    assert desk.info(rollout).stages[0].devices == 1, "the board counts once"
    assert len({each.id for each in desk.deployments(rollout)}) == 3


def test_a_board_that_was_harmed_is_tried_again_only_by_a_person(desk: Desk) -> None:
    rollout = desk.create(spec(retry=RetrySpec(backoff_seconds=1)), 0).id
    row = next(each for each in desk.deployments(rollout) if each.device == "cam-0")
    desk.say(row, Phase.REFUSED, 1, HARM)
    desk.tick(100)
    assert len(desk.deployments(rollout)) == 10
    with desk.session() as session:
        told = service.retry(session, rollout, "operator", 200)
    assert told.stages[0].failed == 0
    again = next(each for each in desk.deployments(rollout) if each.retry_of == row.id)
    assert (again.attempt, again.assigned, again.phase) == (2, 200, "idle")
    assert "rollout retry" in desk.told(rollout)
    desk.say(row, Phase.CONFIRMED, 210)
    assert desk.info(rollout).stages[0].healthy == 0, "the first attempt is over"


@pytest.mark.parametrize(
    ("asked", "fault"),
    [
        (spec(StageSpec(gate=GATE)), "stages[0]: nothing given, give one of"),
        (spec(StageSpec(percent=5, count=2)), "stages[0]: percent and count given"),
        (spec(StageSpec(percent=50), StageSpec(percent=20)),
         "stages[1].percent: stages must grow, 20 comes after 50"),
        (spec(StageSpec(count=5), StageSpec(count=5)), "stages[1].count: stages must grow"),
        (spec(selector="speed==3"), "selector: selector 'speed==3': at position 1"),
        (spec(order=("arch",)), "order[0]: selector 'arch': at position 5, its end"),
        (spec(StageSpec(selector="arch==")), "stages[0].selector: selector 'arch=='"),
        (spec(StageSpec(percent=1, gate=GateSpec(sequential=SequentialSpec(good_share=0.2)))),
         "stages[0].gate.sequential.bad_share: 0.1 must be over good_share, 0.2"),
    ],
)  # fmt: skip
def test_faults_name_the_field(desk: Desk, asked: RolloutSpec, fault: str) -> None:
    assert faults(asked)[0].startswith(fault)
    with pytest.raises(MalformedError):
        desk.create(asked)


def write(home: Path, text: str) -> Path:
    path = home / "rollout.yaml"
    path.write_text("model: shapes\nrelease: '1.1'\n" + text)
    return path


def test_a_rollout_is_read_from_yaml(tmp_path: Path) -> None:
    found = read_rollout(
        write(
            tmp_path,
            """
selector: class==jetson-*;tag.site=in=(north,south)
order: [tag.lab==yes]
blast_radius: 50
retry: {codes: [disk], limit: 2}
stages:
  - {count: 40, approval: true, gate: {sequential: {on_exhausted: widen}, limits: {failed: 5}}}
  - {percent: 100, gate: {soak_seconds: 3600}}
""",
        )
    )
    assert [each.title for each in found.stages] == ["40 of each class", "100 %"]
    test = found.stages[0].gate.sequential
    assert test is not None
    assert (test.on_exhausted, test.bad_share) == ("widen", 0.10)
    assert found.retry == RetrySpec(codes=("disk",), limit=2)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "stages: [{percent: 100, gate: {max_failures: 1}}]",
            "no field stages[0].gate.max_failures",
        ),
        ("stages: [{percent: 100}]\nselecter: x", "no field selecter"),
        ("stages: [{percent: 130}]", "`$.stages[0].percent`"),
        ("stages: [{percent: 5}, {percent: 5}]", "stages[1].percent: stages must grow"),
        ("stages: []", "$.stages"),
        ("stages: [{percent: 100}]\nselector: 'arch='", "selector: selector 'arch='"),
        ("stages: [", "cannot be read"),
    ],
)
def test_a_faulty_file_names_the_field(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(InputError) as refused:
        read_rollout(write(tmp_path, text))
    assert said in str(refused.value)
    assert "rollout.yaml" in str(refused.value)
