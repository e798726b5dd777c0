"""A rollout's boards in lists: a board that is silent is in trouble, by the rule of the gate."""

from __future__ import annotations

from itertools import product

import pytest
from sqlmodel import Session, SQLModel, col, create_engine, select

from kedge_server.rollouts import knowledge, placing
from kedge_server.rollouts.facts import Standing, is_silent, standing
from kedge_server.rollouts.reports import deployment_values
from kedge_server.rollouts.tables import DeploymentRow, RolloutRow
from kedge_shared.phases import Phase
from kedge_shared.rollouts import GateSpec, RolloutSpec, SequentialSpec, StageSpec

NOW = 10_000.0
GATES = (
    GateSpec(silence_seconds=600),
    GateSpec(silence_seconds=1200, sequential=SequentialSpec()),
)
SPEC = RolloutSpec(
    model="shapes", release="1.1",
    stages=tuple(StageSpec(percent=each, gate=gate)
                 for each, gate in zip((10, 100), GATES, strict=True)),
)  # fmt: skip
#: Everything that silence may depend on.
CASES = tuple(
    product(Phase, range(len(GATES)), (None, NOW - 300, NOW - 900, NOW - 3000),
            (None, NOW - 300, NOW - 900, NOW - 3000))
)  # fmt: skip


@pytest.fixture(scope="module")
def session() -> Session:
    engine = create_engine("sqlite://")
    SQLModel.metadata.create_all(engine)
    found = Session(engine)
    rollout = RolloutRow(id="ro", model="shapes", release="1.1", recall=False, spec="",
                         state="running", reason="", created=0)  # fmt: skip
    for at, (phase, stage, assigned, begun) in enumerate(CASES):
        values = deployment_values(rollout, f"cam-{at:04}", stage, NOW)
        values |= {"phase": phase.value, "assigned": assigned, "begun": begun}
        found.add(DeploymentRow(**values))
    found.flush()
    return found


def placed(session: Session, place: placing.Place) -> list[DeploymentRow]:
    query = select(DeploymentRow).where(placing.within(place, SPEC, NOW))
    return list(session.exec(query.order_by(col(DeploymentRow.device))))


def test_the_database_says_of_silence_what_the_gate_says(session: Session) -> None:
    query = select(DeploymentRow).where(placing.silent(SPEC, NOW))
    told = {each.device for each in session.exec(query)}
    rows = session.exec(select(DeploymentRow).where(col(DeploymentRow.assigned).is_not(None)))
    wanted = {
        row.device for row in rows
        if is_silent(knowledge.facts_from(row), SPEC.stages[row.stage].gate, NOW)
    }  # fmt: skip
    assert told == wanted
    assert 10 < len(wanted) < len(CASES) / 2


def test_every_board_stands_in_one_place(session: Session) -> None:
    places: tuple[placing.Place, ...] = ("trouble", "work", "healthy", "waiting")
    found = [row.device for each in places for row in placed(session, each)]
    assert sorted(found) == [f"cam-{at:04}" for at in range(len(CASES))]
    assert len(placed(session, "all")) == len(CASES)


def test_who_failed_the_gate_is_in_trouble_and_nobody_at_work_has(session: Session) -> None:
    def counts(row: DeploymentRow) -> Standing:
        return standing(knowledge.facts_from(row), SPEC.stages[row.stage].gate, NOW)

    assert {counts(each) for each in placed(session, "work")} == {Standing.PENDING}
    trouble = placed(session, "trouble")
    assert {"rolled_back", "refused", "rolling_back", "probation", "idle"} <= {
        each.phase for each in trouble
    }
    quiet = [each for each in trouble if each.phase == "probation"]
    assert {counts(each) for each in quiet} == {Standing.FAILED}
