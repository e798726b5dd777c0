"""A large fleet with a past, for the console's benchmark."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import Table, insert, update
from sqlmodel import Session

from benchmarks import server_fleet
from benchmarks.server_fleet import Fleet
from kedge_server.accounts.service import add_user
from kedge_server.app import open_context
from kedge_server.database import transaction
from kedge_server.devices.tables import DeviceRow
from kedge_server.releases.tables import BuildRow, ReleaseRow
from kedge_server.rollouts.reports import deployment_values
from kedge_server.rollouts.tables import DEPLOYMENTS, RolloutRow, StageRow
from kedge_shared import wire
from kedge_shared.accounts import UserRequest
from kedge_shared.rollouts import GateSpec, RolloutSpec, SequentialSpec, StageSpec
from tests.shared import samples

USER, PASSWORD = "ada", "a password of benchmarks"
_SMALL = 20
_STAGES = (5, 25, 60, 100)
_TABLE: Table = DeviceRow.__table__  # type: ignore[attr-defined]
_CLASS = "x86-onnxruntime"


@dataclass(frozen=True)
class Seeded:
    """A fleet with a past.

    Attributes:
        fleet: It.
        completed: A rollout that brought 1.1 to every board.
        running: One that brings 1.2, and has reached 60 %.
    """

    fleet: Fleet
    completed: str
    running: str

    @property
    def middle(self) -> str:
        """A board in the midst of the fleet."""
        return self.fleet.name(self.fleet.devices // 2)


def seed(home: Path, devices: int, rollouts: int) -> Seeded:
    """Makes a fleet of which two rollouts had every board, and the others some."""
    fleet = server_fleet.seed(home, devices)
    context = open_context(fleet.settings)
    now = time.time()
    with transaction(context.engine) as session:
        add_user(session, UserRequest(name=USER, roles=("admin",), password=PASSWORD), "benchmark")
        for counter, release in enumerate(("1.1", "1.2", "1.3"), start=2):
            _publish(session, release, counter)
        for at in range(rollouts - 2):
            chosen = range(at * _SMALL % devices, at * _SMALL % devices + _SMALL)
            _rollout(session, fleet, f"ro-small-{at:04}", "1.0", chosen, "completed", 4, now)
        everybody = range(devices)
        _rollout(session, fleet, "ro-completed", "1.1", everybody, "completed", 4, now)
        _rollout(session, fleet, "ro-running", "1.2", everybody, "running", 3, now)
        for release, upto in (("1.1", devices), ("1.2", devices * 6 // 10)):
            session.execute(
                update(_TABLE).where(_TABLE.c.id < fleet.name(upto))
                .values(release=release, phase="confirmed", last_seen=now, latency_p95_ms=12.5)
            )  # fmt: skip
        gone = _TABLE.c.id >= fleet.name(devices - devices // 100)
        session.execute(update(_TABLE).where(gone).values(last_seen=now - 90_000))
    server_fleet.close(context)
    return Seeded(fleet, "ro-completed", "ro-running")


def _publish(session: Session, release: str, counter: int) -> None:
    from dataclasses import replace

    manifest = replace(samples.manifest(), release=release, release_counter=counter)
    session.add(
        ReleaseRow(model="shapes", release=release, release_counter=counter, published=counter)
    )
    session.add(
        BuildRow(model="shapes", release=release, device_class=_CLASS, manifest_length=1,
                 manifest_path=manifest.target_path, manifest_sha256="a" * 64,
                 manifest=wire.encode(manifest))
    )  # fmt: skip


def _rollout(
    session: Session, fleet: Fleet, name: str, release: str, boards: range, state: str,
    begun: int, now: float,
) -> None:  # fmt: skip
    gate = GateSpec(sequential=SequentialSpec(), soak_seconds=600, silence_seconds=1e7)
    spec = RolloutSpec(
        model="shapes", release=release,
        stages=tuple(StageSpec(percent=each, gate=gate) for each in _STAGES),
    )  # fmt: skip
    row = RolloutRow(
        id=name, model="shapes", release=release, recall=False, spec=wire.encode(spec).decode(),
        state=state, reason="a reason", created=now - 5000, created_by="benchmark",
        finished=now - 4000 if state == "completed" else None,
    )  # fmt: skip
    session.add(row)
    session.flush()
    session.add_all(
        StageRow(rollout=name, index=at, percent=each, started=now - 5000,
                 state="passed" if at + 1 < begun or state == "completed" else
                 "running" if at + 1 == begun else "waiting")
        for at, each in enumerate(_STAGES)
    )  # fmt: skip
    session.flush()
    session.execute(insert(DEPLOYMENTS), list(_deployments(row, fleet, boards, begun, now)))


def _deployments(
    row: RolloutRow, fleet: Fleet, boards: range, begun: int, now: float
) -> Iterator[dict[str, Any]]:
    for place, at in enumerate(boards):
        share = 100 * place / len(boards)
        stage = next(index for index, percent in enumerate(_STAGES) if share < percent)
        values = deployment_values(row, fleet.name(at % fleet.devices), stage, now - 5000)
        values |= {"assigned": None, "begun": None, "confirmed": None}
        if stage < begun:
            # Each took it up at a moment of its own.
            values |= {"assigned": now - 5000 + stage, "begun": now - 4900 + place / 1000,
                       "confirmed": now - 4000 + place / 1000, "phase": "confirmed"}  # fmt: skip
        yield values
