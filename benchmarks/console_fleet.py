"""A large fleet with a past, for the console's benchmark."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from msgspec import structs
from sqlalchemy import Table, insert, select, update
from sqlmodel import Session, col
from sqlmodel import select as model_select

from benchmarks import server_fleet
from benchmarks.server_fleet import Fleet
from kedge_server.accounts.service import add_user
from kedge_server.app import open_context
from kedge_server.audit.tables import AuditRow
from kedge_server.database import transaction
from kedge_server.devices.tables import AssignmentRow, DeviceRow
from kedge_server.releases.tables import BuildRow, ReleaseRow
from kedge_server.rollouts.reports import deployment_values
from kedge_server.rollouts.tables import DEPLOYMENTS, RolloutRow, StageRow
from kedge_shared import wire
from kedge_shared.accounts import UserRequest
from kedge_shared.audit import chain
from kedge_shared.ids import sha256_hex
from kedge_shared.rollouts import GateSpec, RolloutSpec, SequentialSpec, StageSpec
from tests.shared import samples

USER, PASSWORD = "ada", "a password of benchmarks"
_SMALL, _LAYERS, _ENTRIES = 20, 500, 20_000
_STAGES = (5, 25, 60, 100)
_TABLE: Table = DeviceRow.__table__  # type: ignore[attr-defined]
_AUDIT: Table = AuditRow.__table__  # type: ignore[attr-defined]
_TOLD: Table = AssignmentRow.__table__  # type: ignore[attr-defined]
CLASS = "x86-onnxruntime"


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
            _publish(session, release, counter, context.settings.data / "artifacts")
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
        _told(session, now)
        _log(session, now)
    server_fleet.close(context)
    return Seeded(fleet, "ro-completed", "ro-running")


def _told(session: Session, now: float) -> None:
    """Has every board been told what the newest rollout that reached it brought."""
    rows = session.execute(
        select(DEPLOYMENTS.c.device, DEPLOYMENTS.c.id)
        .where(DEPLOYMENTS.c.rollout.in_(["ro-completed", "ro-running"]))
        .where(DEPLOYMENTS.c.assigned.is_not(None))
        .order_by(DEPLOYMENTS.c.rollout)
    )
    values = [
        {"device": device, "deployment": deployment, "intent": "install", "counter": 1,
         "issued": int(now), "expires": int(now) + 86400, "envelope": "x" * 1300}
        for device, deployment in dict(row._tuple() for row in rows).items()
    ]  # fmt: skip
    session.execute(insert(_TOLD), values)


def _publish(session: Session, release: str, counter: int, store: Path) -> None:
    manifest = replace(samples.manifest(), release=release, release_counter=counter)
    session.add(
        ReleaseRow(model="shapes", release=release, release_counter=counter, published=counter)
    )
    report = _report()
    digest = sha256_hex(report)
    (store / digest[:2]).mkdir(parents=True, exist_ok=True)
    (store / digest[:2] / digest).write_bytes(report)
    session.add(
        BuildRow(model="shapes", release=release, device_class=CLASS, manifest_length=1,
                 manifest_path=manifest.target_path, manifest_sha256=samples.HASH,
                 manifest=wire.encode(manifest), report=digest)
    )  # fmt: skip


def _report() -> bytes:
    """Returns the report of a build with as many layers as a YOLOv8x has."""
    found = samples.build_report()
    layers = tuple(
        structs.replace(found.layers[0], name=f"/model.{at // 20}/conv{at}/Conv",
                        block=f"model.{at // 20}", reason="outside of the float zone: INT8")
        for at in range(_LAYERS)
    )  # fmt: skip
    return wire.encode(structs.replace(found, layers=layers, layers_in_all=_LAYERS))


def _log(session: Session, now: float) -> None:
    """Writes the audit log of some years."""
    last = session.exec(model_select(AuditRow).order_by(col(AuditRow.id).desc()).limit(1)).one()
    previous, rows = last.hash, []
    for at in range(_ENTRIES):
        said = (now - _ENTRIES + at, USER if at % 50 == 0 else "otto", "rollout pause", f"ro-{at}")
        following = chain(previous, *said, "")
        names = ("at", "actor", "action", "subject")
        rows.append({**dict(zip(names, said, strict=True)), "detail": "", "previous": previous,
                     "hash": following})  # fmt: skip
        previous = following
    session.execute(insert(_AUDIT), rows)


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
