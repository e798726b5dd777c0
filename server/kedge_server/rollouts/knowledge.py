"""What the database knows of a rollout, as the facts that gates judge by."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any

from sqlalchemy import BigInteger, ColumnElement, Row, Select, case, cast, func, select
from sqlmodel import Session, col
from sqlmodel import select as select_row

from kedge_server.devices.tables import DeviceRow
from kedge_server.rollouts.facts import ControlFacts, DeploymentFacts, GateFacts
from kedge_server.rollouts.stages import pools
from kedge_server.rollouts.tables import DeploymentRow, RolloutRow, StageRow
from kedge_shared import wire
from kedge_shared.phases import BACK, TERMINAL, Phase
from kedge_shared.protocol import Verdict
from kedge_shared.rollouts import RolloutSpec
from kedge_shared.windows import WindowSpec

#: Columns instead of entities: a stage may hold the whole fleet, and is read at every look.
_COLUMNS = (
    DeploymentRow.device, DeploymentRow.phase, DeploymentRow.verdict, DeploymentRow.assigned,
    DeploymentRow.confirmed, DeploymentRow.stage, DeploymentRow.begun,
    DeploymentRow.baseline_p95_ms, DeploymentRow.after_p95_ms, DeploymentRow.latency_p95_ms,
    DeploymentRow.error_share, DeploymentRow.agreement, DeviceRow.device_class,
)  # fmt: skip
_UNTOUCHED = Verdict(code="ok")
#: Where a standing follows from the verdict; and where from when a board was told.
_ENDED = tuple(sorted(each.value for each in BACK))
_OVER = tuple(sorted(each.value for each in TERMINAL))


def _moment(column: Any) -> ColumnElement[float]:
    """Returns a time to a tenth of a second, of boards that are at work; 0 of all others."""
    tenths = cast(column * 10, BigInteger) / 10.0
    return case((col(DeploymentRow.phase).in_(_OVER), 0.0), else_=tenths)


#: What a standing follows from: of most boards of a large fleet it is the same.
_SAME = (
    col(DeploymentRow.stage),
    col(DeploymentRow.phase),
    case((col(DeploymentRow.phase).in_(_ENDED), col(DeploymentRow.verdict)), else_="").label(
        "verdict"
    ),
    _moment(DeploymentRow.assigned).label("assigned"),
    _moment(DeploymentRow.begun).label("begun"),
)


def facts_of(session: Session, rollout: str, stages: Sequence[StageRow], upto: int) -> GateFacts:
    """Returns what the gate of a stage knows.

    Args:
        session: Of the look.
        rollout: Which.
        stages: All of its stages.
        upto: The stage that is asked about.
    """
    reached = _query(rollout).where(col(DeploymentRow.assigned).is_not(None))
    cohort = [
        _facts(row) for row in session.execute(
            reached.order_by(col(DeploymentRow.assigned), col(DeploymentRow.device))
        )
    ]  # fmt: skip
    unreached = _query(rollout).where(
        col(DeploymentRow.assigned).is_(None), col(DeploymentRow.after_p95_ms).is_not(None)
    )
    controls = [
        ControlFacts(row.device, row.device_class, change)
        for row in session.execute(unreached)
        if (change := _change(row)) is not None
    ]
    states = {each.index: each.state for each in stages}
    return GateFacts(tuple(cohort), tuple(controls), pools(states, upto), len(stages))


def standings_of(
    session: Session, rollout: str
) -> tuple[list[tuple[DeploymentFacts, int]], dict[int, int]]:
    """Returns what is known of the devices that were reached, and stage → how many were not.

    Devices of which the same is known are counted by the database: in a fleet of 100,000 most are.
    """
    waiting = (
        select(col(DeploymentRow.stage), func.count())
        .where(col(DeploymentRow.rollout) == rollout, col(DeploymentRow.assigned).is_(None))
        .where(col(DeploymentRow.retried_by).is_(None))
        .group_by(col(DeploymentRow.stage))
    )
    mine = (
        select(*_SAME)
        .where(col(DeploymentRow.rollout) == rollout, col(DeploymentRow.retried_by).is_(None))
        .where(col(DeploymentRow.assigned).is_not(None))
        .subquery()
    )
    reached = select(*mine.c, func.count().label("devices")).group_by(*mine.c)
    facts = [(_standing_facts(row), int(row.devices)) for row in session.execute(reached)]
    return facts, {row[0]: row[1] for row in session.execute(waiting)}


def _standing_facts(row: Row[Any]) -> DeploymentFacts:
    """Returns what a standing follows from; whose it is does not matter."""
    return DeploymentFacts(
        device="", phase=Phase(row.phase), assigned=row.assigned,
        verdict=_verdict(row.verdict) if row.verdict else _UNTOUCHED,
        confirmed=None, stage=row.stage, begun=row.begun,
    )  # fmt: skip


def _query(rollout: str) -> Select[Any]:
    """Returns the query of a rollout's deployments, the newest attempt of each device."""
    found: Select[Any] = (
        select(*_COLUMNS)  # type: ignore[call-overload]
        .join(DeviceRow, col(DeviceRow.id) == col(DeploymentRow.device))
        .where(col(DeploymentRow.rollout) == rollout, col(DeploymentRow.retried_by).is_(None))
    )
    return found


def _facts(row: Row[tuple[object, ...]]) -> DeploymentFacts:
    return DeploymentFacts(
        device=row.device, phase=Phase(row.phase), verdict=_verdict(row.verdict),
        assigned=row.assigned, confirmed=row.confirmed, device_class=row.device_class,
        stage=row.stage, begun=row.begun, change=_change(row),
        latency_p95_ms=row.latency_p95_ms, error_share=row.error_share, agreement=row.agreement,
    )  # fmt: skip


@lru_cache(maxsize=4096)
def _verdict(text: str) -> Verdict:
    """Returns a stored verdict without its figures, which no gate asks for."""
    found = wire.decode(text.encode(), Verdict, "stored verdict")
    return replace(found, evidence={}) if found != _UNTOUCHED else _UNTOUCHED


def _change(row: Row[tuple[object, ...]]) -> float | None:
    before, after = row.baseline_p95_ms, row.after_p95_ms
    return after / before if before and after else None


def facts_from(row: DeploymentRow) -> DeploymentFacts:
    """Returns what is known of one deployment, without its measures."""
    return DeploymentFacts(
        device=row.device, phase=Phase(row.phase), verdict=verdict_of(row),
        assigned=row.assigned or time.time(), confirmed=row.confirmed, stage=row.stage,
        begun=row.begun,
    )  # fmt: skip


def verdict_of(row: DeploymentRow) -> Verdict:
    """Returns a deployment's verdict."""
    return wire.decode(row.verdict.encode(), Verdict, "stored verdict")


def spec_of(rollout: RolloutRow) -> RolloutSpec:
    """Returns what the operator asked for."""
    return wire.decode(rollout.spec.encode(), RolloutSpec, "stored rollout")


def window_of(session: Session, rollout: str) -> WindowSpec | None:
    """Returns when a rollout lets boards be worked on; ``None`` is always."""
    found = find_row(session, rollout)
    return spec_of(found).window if found else None


def stages_of(session: Session, rollout: str) -> list[StageRow]:
    """Returns a rollout's stages in order."""
    query = select_row(StageRow).where(StageRow.rollout == rollout).order_by(col(StageRow.index))
    return list(session.exec(query))


def find_row(session: Session, rollout: str) -> RolloutRow | None:
    """Returns a rollout, or ``None``."""
    found: RolloutRow | None = session.exec(
        select_row(RolloutRow).where(RolloutRow.id == rollout)
    ).first()
    return found
