"""Reads from a database which artifacts are needed.

Columns, never whole rows: a database of any released revision can be backed up, and an older one
lacks columns that rows have now.
"""

from __future__ import annotations

import json

from sqlalchemy import inspect, select
from sqlmodel import Session, col
from tuf.api.metadata import Metadata, Targets

from kedge_server.bench.tables import BenchJobRow
from kedge_server.devices.tables import AssignmentRow, DeviceRow
from kedge_server.operation.references import Build, Known
from kedge_server.releases.tables import BuildRow
from kedge_server.repository.tables import MetadataRow
from kedge_server.rollouts.tables import DeploymentRow, RolloutRow
from kedge_shared import signing
from kedge_shared.attachments import all_listed_in
from kedge_shared.bench import BenchJob
from kedge_shared.phases import TERMINAL
from kedge_shared.protocol import Assignment
from kedge_shared.trust import MODEL_ROLE_PREFIX

_OPEN = ("running", "paused")


def known(session: Session, now: float) -> Known:
    """Returns what the database says that artifacts are needed for.

    Raises:
        TrustError: A stored envelope was damaged.
    """
    return Known(
        targets=_targets(session),
        builds=_builds(session),
        live=_live(session),
        assigned=_assigned(session),
        engines={
            engine: device
            for device, engine in session.execute(select(col(DeviceRow.id), col(DeviceRow.engine)))
            if engine
        },
        jobs=_jobs(session, now),
    )


def newest_metadata(session: Session) -> dict[str, bytes]:
    """Returns role → the newest version's bytes, of every role there ever was."""
    rows = session.execute(
        select(col(MetadataRow.role), col(MetadataRow.body)).order_by(col(MetadataRow.version))
    )
    return {role: body for role, body in rows.all()}  # noqa: C416 - rows are no pairs to mypy


def _targets(session: Session) -> dict[str, tuple[str, int]]:
    found: dict[str, tuple[str, int]] = {}
    for role, body in newest_metadata(session).items():
        if role == "targets" or role.startswith(MODEL_ROLE_PREFIX):
            for path, target in Metadata[Targets].from_bytes(body).signed.targets.items():
                found[path] = (target.hashes.get("sha256", ""), target.length)
                for name, named in all_listed_in(target.custom).items():
                    found[f"{name} of {path}"] = (named.sha256, named.length)
    return found


def _builds(session: Session) -> tuple[Build, ...]:
    columns = [BuildRow.model, BuildRow.release, BuildRow.manifest_sha256,
               BuildRow.manifest_length, BuildRow.manifest]  # fmt: skip
    # A database of an older server is backed up as it is.
    there = {each["name"] for each in inspect(session.connection()).get_columns("build")}
    columns += [getattr(BuildRow, each) for each in ("provenance", "report") if each in there]
    return tuple(Build(*row) for row in session.execute(select(*map(col, columns))))


def _live(session: Session) -> frozenset[tuple[str, str]]:
    rollouts = select(col(RolloutRow.model), col(RolloutRow.release)).where(
        col(RolloutRow.state).in_(_OPEN)
    )
    under_way = select(col(DeploymentRow.model), col(DeploymentRow.release)).where(
        col(DeploymentRow.assigned).is_not(None),
        col(DeploymentRow.phase).not_in([each.value for each in TERMINAL]),
    )
    return frozenset(
        (model, release)
        for query in (rollouts, under_way)
        for model, release in session.execute(query.distinct())
    )


def _assigned(session: Session) -> dict[str, str]:
    rows = session.execute(select(col(AssignmentRow.device), col(AssignmentRow.envelope)))
    found: dict[str, str] = {}
    for device, envelope in rows:
        manifest = signing.peek(json.loads(envelope), Assignment).manifest
        if manifest is not None:
            found[manifest.sha256] = device
    return found


def _jobs(session: Session, now: float) -> dict[str, int]:
    if not inspect(session.connection()).has_table(BenchJobRow.__tablename__):
        return {}
    query = select(col(BenchJobRow.envelope)).where(
        col(BenchJobRow.result) == "", col(BenchJobRow.expires) > now
    )
    found: dict[str, int] = {}
    for envelope in session.execute(query).scalars():
        found |= signing.peek(json.loads(envelope), BenchJob).lengths
    return found
