"""A whole fleet in one process: a staged rollout through the real service, time being handed in."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from sqlalchemy import Engine, select
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


@dataclass
class Took:
    """Seconds that something took.

    Attributes:
        wall: By the clock, on a machine that others may use.
        cpu: Of this process.
    """

    wall: float = 0.0
    cpu: float = 0.0


@contextmanager
def took() -> Iterator[Took]:
    """Measures what is done within."""
    found, wall, cpu = Took(), time.perf_counter(), time.process_time()
    yield found
    found.wall, found.cpu = time.perf_counter() - wall, time.process_time() - cpu


@dataclass(frozen=True)
class Rolled:
    """What a rollout took.

    Attributes:
        create: To draw, store and assign the first stage.
        assign: The look that began the largest stage.
        assigned: Devices of that stage.
        all: All of it, every board's reports included.
        state: At the end.
    """

    create: Took
    assign: Took
    assigned: int
    all: Took
    state: str


def roll_out(fleet: Fleet, percents: tuple[float, ...] = PERCENTS) -> Rolled:
    """Rolls a release out; every board proves healthy a minute after it was reached."""
    context, now = open_context(fleet.settings), 1_000_000.0
    stages = tuple(StageSpec(percent=each, gate=_GATE) for each in percents)
    spec = RolloutSpec(model="shapes", release="1.0", stages=stages)
    assign, assigned, state = Took(), 0, "running"
    with took() as everything:
        with took() as create, transaction(context.engine) as session:
            rollout = service.create(session, spec, "benchmark", now).id
        while state == "running":
            _prove(context.engine, rollout, now + 60)
            now += 121
            with took() as look, transaction(context.engine) as session:
                progress.look(session, rollout, now)
            with transaction(context.engine) as session:
                state = service.find(session, rollout).state
                fresh = len(_idle(session, rollout))
            if fresh > assigned:
                assign, assigned = look, fresh
    close(context)
    return Rolled(create, assign, assigned, everything, state)


def _prove(engine: Engine, rollout: str, now: float) -> None:
    """Lets every board that was reached prove healthy."""
    with transaction(engine) as session:
        waiting = _idle(session, rollout)
    for at in range(0, len(waiting), _BATCH):
        with transaction(engine) as session:
            reports.take(session, [_healthy(*each) for each in waiting[at : at + _BATCH]], now)


def _idle(session: Session, rollout: str) -> list[tuple[str, str]]:
    query = select(col(DeploymentRow.id), col(DeploymentRow.device)).where(
        col(DeploymentRow.rollout) == rollout, col(DeploymentRow.phase) == "idle",
        col(DeploymentRow.assigned).is_not(None),
    )  # fmt: skip
    return [(row.id, row.device) for row in session.execute(query)]


def _healthy(deployment: str, device: str) -> Report:
    return Report(
        device=device, boot_id="boot", seq=1, created=0, deployment=deployment, workload="main",
        phase=Phase.CONFIRMED, engine="e" * 64, release="1.0", verdict=Verdict(code="ok"),
    )  # fmt: skip
