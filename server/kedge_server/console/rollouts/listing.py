"""Rollouts, page by page: what the list shows costs nothing that grows with the fleet."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import select as select_columns
from sqlmodel import Session, col, select

from kedge_server.accounts import reach
from kedge_server.accounts.principal import Reach
from kedge_server.rollouts import knowledge, placing
from kedge_server.rollouts.facts import is_silent
from kedge_server.rollouts.tables import DecisionRow, DeploymentRow, RolloutRow, StageRow
from kedge_shared import wire
from kedge_shared.protocol import Verdict

SHOWN = 50


@dataclass(frozen=True)
class Line:
    """A rollout in the list.

    Attributes:
        rollout: It.
        stages: Its stages.
        titles: What they are called.
    """

    rollout: RolloutRow
    stages: tuple[StageRow, ...]
    titles: tuple[str, ...]


def page(
    session: Session, within: Reach, state: str, before: int | None
) -> tuple[list[Line], int | None]:
    """Returns rollouts, newest first, and where the next page begins.

    Args:
        session: Of the request.
        within: Only those whose every board is within.
        state: Only those that stand so; empty is any.
        before: Only those that were made before this one.
    """
    query = (
        select(RolloutRow)
        .where(reach.covers(session, within))
        .order_by(col(RolloutRow.order).desc())
        .limit(SHOWN + 1)
    )
    if state:
        query = query.where(RolloutRow.state == state)
    if before is not None:
        query = query.where(col(RolloutRow.order) < before)
    rows = list(session.exec(query))
    following = rows[SHOWN - 1].order if len(rows) > SHOWN else None
    return _lines(session, rows[:SHOWN]), following


def _lines(session: Session, rows: Sequence[RolloutRow]) -> list[Line]:
    names = [each.id for each in rows]
    stages: dict[str, list[StageRow]] = defaultdict(list)
    query = select(StageRow).where(col(StageRow.rollout).in_(names)).order_by(col(StageRow.index))
    for stage in session.exec(query):
        stages[stage.rollout].append(stage)
    return [
        Line(each, tuple(stages[each.id]),
             tuple(stage.title for stage in knowledge.spec_of(each).stages))
        for each in rows
    ]  # fmt: skip


@dataclass(frozen=True)
class Placed:
    """A deployment in a rollout's list.

    Attributes:
        device: Its board.
        stage: Zero-based.
        phase: As last reported.
        verdict: As last reported.
        silent: Failed by silence.
        assigned: Unix seconds, or ``None``.
        updated: Unix seconds.
        attempt: Counts from 1.
    """

    device: str
    stage: int
    phase: str
    verdict: Verdict
    silent: bool
    assigned: float | None
    updated: float
    attempt: int


def deployments(
    session: Session, rollout: RolloutRow, which: placing.Place, after: str, now: float
) -> tuple[list[Placed], str]:
    """Returns a rollout's deployments in the order of their ids, and the last id if more follow."""
    spec, at = knowledge.spec_of(rollout), rollout.finished or now
    query = (
        select(DeploymentRow)
        .where(DeploymentRow.rollout == rollout.id, col(DeploymentRow.id) > after)
        .where(col(DeploymentRow.retried_by).is_(None), placing.within(which, spec, at))
        .order_by(col(DeploymentRow.id))
        .limit(SHOWN + 1)
    )
    rows = list(session.exec(query))
    found = [
        Placed(
            device=row.device, stage=row.stage, phase=row.phase, verdict=knowledge.verdict_of(row),
            silent=row.assigned is not None
            and is_silent(knowledge.facts_from(row), spec.stages[row.stage].gate, at),
            assigned=row.assigned, updated=row.updated, attempt=row.attempt,
        )
        for row in rows[:SHOWN]
    ]  # fmt: skip
    return found, rows[SHOWN - 1].id if len(rows) > SHOWN else ""


@dataclass(frozen=True)
class Said:
    """A stored decision, without all that it rests on."""

    id: int
    stage: int
    at: float
    verdict: str
    reason: str


def decisions(session: Session, rollout: str) -> list[Said]:
    """Returns what gates decided, newest first."""
    columns = (DecisionRow.id, DecisionRow.stage, DecisionRow.at, DecisionRow.verdict,
               DecisionRow.reason)  # fmt: skip
    query = (
        select_columns(*columns)  # type: ignore[call-overload]
        .where(col(DecisionRow.rollout) == rollout)
        .order_by(col(DecisionRow.id).desc())
        .limit(SHOWN)
    )
    return [Said(*row) for row in session.execute(query)]


def left_out(rollout: RolloutRow) -> list[tuple[str, int, tuple[str, ...]]]:
    """Returns why boards were left out: reason, how many, and some of them."""
    held = wire.decode(rollout.skipped.encode(), dict[str, str], "stored rollout")
    return by_reason(held)


def by_reason(held: dict[str, str]) -> list[tuple[str, int, tuple[str, ...]]]:
    """Returns the reasons of boards, commonest first: reason, how many, and some of them. Pure."""
    some: dict[str, list[str]] = defaultdict(list)
    counts = Counter[str]()
    for device, why in held.items():
        counts[why] += 1
        if len(some[why]) < 5:
            some[why].append(device)
    return [(why, count, tuple(some[why])) for why, count in counts.most_common(SHOWN)]
