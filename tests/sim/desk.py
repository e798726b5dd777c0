"""The rollout service over a database of its own: no HTTP, no keys, time is handed in."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from sqlalchemy import create_engine
from sqlalchemy.pool import StaticPool
from sqlmodel import Session, select

from kedge_server.audit.tables import AuditRow
from kedge_server.database import connect
from kedge_server.devices.tables import DeviceRow
from kedge_server.releases.tables import BuildRow, ReleaseRow
from kedge_server.rollouts import progress, reports, service
from kedge_server.rollouts.stages import RolloutEvent
from kedge_server.rollouts.tables import DeploymentRow, RolloutRow, StageRow
from kedge_server.tables import METADATA
from kedge_shared import wire
from kedge_shared.api import RolloutInfo, RolloutSpec
from kedge_shared.phases import Phase
from kedge_shared.protocol import Report, Verdict
from tests.shared import samples

HARM = Verdict(code="accuracy", reason="worse", cause="harm")
OK = Verdict(code="ok")


class Desk:
    """A database with devices and releases, and the calls that routes and scheduler make."""

    def __init__(self, home: Path | None = None, database: str = "") -> None:
        self.engine = (
            connect(database or home / "kedge.db")
            if home
            else create_engine(
                "sqlite://", poolclass=StaticPool, connect_args={"check_same_thread": False}
            )
        )
        METADATA.create_all(self.engine)
        self.seq = 0

    @contextmanager
    def session(self) -> Iterator[Session]:
        with Session(self.engine, expire_on_commit=False) as session, session.begin():
            yield session

    def publish(self, release: str, counter: int, *classes: str) -> None:
        with self.session() as session:
            session.add(ReleaseRow(model="shapes", release=release, release_counter=counter,
                                   published=0))  # fmt: skip
            for each in classes or ("x86-onnxruntime",):
                body = replace(samples.manifest(), release=release, device_class=each)
                session.add(
                    BuildRow(
                        model="shapes", release=release, device_class=each, manifest_length=1,
                        manifest_path=body.target_path, manifest_sha256="a" * 64,
                        manifest=wire.encode(body),
                    )
                )  # fmt: skip

    def enrol(
        self, name: str, now: float = 0.0, device_class: str = "x86-onnxruntime",
        tags: dict[str, str] | None = None,
    ) -> None:  # fmt: skip
        with self.session() as session:
            device = DeviceRow(
                id=name, device_class=device_class, key_id=name, public_key="", token_hash=name,
                facts=wire.encode(samples.facts()).decode(), enrolled=now,
                tags=json.dumps(tags or {}),
            )  # fmt: skip
            session.add(device)
            session.flush()
            reports.late_device(session, device, now)

    def create(self, spec: RolloutSpec, now: float = 0.0) -> RolloutInfo:
        with self.session() as session:
            return service.create(session, spec, "operator", now)

    def tick(self, now: float) -> bool:
        with self.session() as session:
            names = progress.open_rollouts(session)
        looked = [self.look(each, now) for each in names]
        return any(looked)

    def look(self, rollout: str, now: float) -> bool:
        with self.session() as session:
            return progress.look(session, rollout, now)

    def change(self, rollout: str, event: str, now: float) -> RolloutInfo:
        with self.session() as session:
            return service.change(session, rollout, RolloutEvent(event), "operator", now)

    def approve(self, rollout: str, now: float) -> RolloutInfo:
        with self.session() as session:
            return service.approve(session, rollout, "operator", now)

    def say(
        self, deployment: DeploymentRow, phase: Phase, now: float, verdict: Verdict = OK
    ) -> None:
        """Reports as a device would; the sequence number grows."""
        self.seq += 1
        self.hear(self.report(deployment, phase, verdict, self.seq), now)

    def report(self, row: DeploymentRow, phase: Phase, verdict: Verdict, seq: int) -> Report:
        return Report(
            device=row.device, boot_id="boot", seq=seq, created=0, deployment=row.id,
            workload="main", phase=phase, engine="", release="", verdict=verdict,
        )  # fmt: skip

    def hear(self, report: Report, now: float) -> None:
        with self.session() as session:
            reports.take(session, [report], now)

    def info(self, rollout: str, now: float = 0.0) -> RolloutInfo:
        with self.session() as session:
            return service.info(session, service.find(session, rollout), now)

    def rollout(self, rollout: str) -> RolloutRow:
        with self.session() as session:
            return service.find(session, rollout)

    def stages(self, rollout: str) -> list[StageRow]:
        with self.session() as session:
            query = select(StageRow).where(StageRow.rollout == rollout).order_by(StageRow.index)  # type: ignore[arg-type]
            return list(session.exec(query))

    def deployments(self, rollout: str) -> list[DeploymentRow]:
        with self.session() as session:
            return list(session.exec(select(DeploymentRow).where(DeploymentRow.rollout == rollout)))

    def told(self, subject: str) -> list[str]:
        """Returns the audit log's actions about a rollout, oldest first."""
        with self.session() as session:
            rows = session.exec(select(AuditRow).where(AuditRow.subject == subject))
            return [each.action for each in rows]
