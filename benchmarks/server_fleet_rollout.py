"""A whole fleet in one process: a staged rollout through the real service, time being handed in."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass

from sqlalchemy import select
from sqlmodel import Session, col

from benchmarks.server_fleet import Fleet, close
from kedge_server.app import open_context
from kedge_server.database import transaction
from kedge_server.rollouts import progress, reports, service
from kedge_server.rollouts.tables import DeploymentRow
from kedge_shared.api import GateSpec, RolloutSpec, StageSpec
from kedge_shared.phases import Phase
from kedge_shared.protocol import Report, Verdict

PERCENTS = (1.0, 10.0, 50.0, 100.0)
_BATCH = 1000
_GATE = GateSpec(soak_seconds=60)


@dataclass(frozen=True)
class Rolled:
    """What a rollout took.

    Attributes:
        create_seconds: To draw, store and assign the first stage.
        assign_seconds: Longest look that began a stage.
        assigned: Devices of that stage.
        seconds: All of it, every board's reports included.
        state: At the end.
    """

    create_seconds: float
    assign_seconds: float
    assigned: int
    seconds: float
    state: str


def roll_out(fleet: Fleet, percents: tuple[float, ...] = PERCENTS) -> Rolled:
    """Rolls a release out; every board proves healthy a minute after it was reached."""
    context, now = open_context(fleet.settings), 1_000_000.0
    stages = tuple(StageSpec(percent=each, gate=_GATE) for each in percents)
    started = time.perf_counter()
    with transaction(context.engine) as session:
        spec = RolloutSpec(model="shapes", release="1.0", stages=stages)
        rollout = service.create(session, spec, "benchmark", now).id
    created = time.perf_counter() - started
    longest, assigned, state = 0.0, 0, "running"
    while state == "running":
        now += 60
        waiting = list(_reached(context.engine, rollout))
        for at in range(0, len(waiting), _BATCH):
            with transaction(context.engine) as session:
                reports.take(session, [_healthy(*each) for each in waiting[at : at + _BATCH]], now)
        now += 61
        looked = time.perf_counter()
        with transaction(context.engine) as session:
            progress.tick(session, now)
        took = time.perf_counter() - looked
        with transaction(context.engine) as session:
            state = service.find(session, rollout).state
            fresh = sum(1 for _ in _idle(session, rollout))
        if fresh > assigned:
            longest, assigned = took, fresh
    seconds = time.perf_counter() - started
    close(context)
    return Rolled(created, longest, assigned, seconds, state)


def _reached(engine: object, rollout: str) -> Iterator[tuple[str, str]]:
    with transaction(engine) as session:  # type: ignore[arg-type]
        yield from _idle(session, rollout)


def _idle(session: Session, rollout: str) -> Iterator[tuple[str, str]]:
    query = select(col(DeploymentRow.id), col(DeploymentRow.device)).where(
        col(DeploymentRow.rollout) == rollout, col(DeploymentRow.phase) == "idle",
        col(DeploymentRow.assigned).is_not(None),
    )  # fmt: skip
    for row in session.execute(query):
        yield row.id, row.device


def _healthy(deployment: str, device: str) -> Report:
    return Report(
        device=device, boot_id="boot", seq=1, created=0, deployment=deployment, workload="main",
        phase=Phase.CONFIRMED, engine="e" * 64, release="1.0", verdict=Verdict(code="ok"),
    )  # fmt: skip
