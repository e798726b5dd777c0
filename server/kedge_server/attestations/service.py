"""Takes attestations with the reports that bring them, and gives them out again."""

from __future__ import annotations

import json

from sqlmodel import Session, col, select

from kedge_server.attestations.tables import AttestationRow
from kedge_server.audit.service import record
from kedge_server.devices.tables import DeviceRow
from kedge_server.releases.tables import BuildRow
from kedge_shared import signing
from kedge_shared.attestation import (
    AttestationInfo,
    Running,
    check_build,
    check_running,
    open_running,
)
from kedge_shared.errors import TrustError
from kedge_shared.manifest import read_manifest
from kedge_shared.protocol import Report
from kedge_shared.statement import Statement


def take(session: Session, device: DeviceRow, report: Report, now: float) -> None:
    """Checks and keeps what a board attests.

    One that does not hold is kept with the reason and told of in the audit log. The report that
    brought it still counts: it bears the board's signature itself, and to forget a rollback for a
    faulty attestation would hide harm.
    """
    if report.attestation is None:
        return
    row = AttestationRow(
        device=device.id, boot_id=report.boot_id, seq=report.seq, received=now,
        event=report.phase.value, release=report.release, engine=report.engine,
        key=device.public_key, envelope=json.dumps(report.attestation),
    )  # fmt: skip
    try:
        said = open_running(
            report.attestation, signing.key_from_dict(json.loads(device.public_key))
        )
        check_running(said, report)
        row.published = _published(session, device, said)
        row.manifest = said.predicate.manifest_sha256
    except TrustError as error:
        row.refused = str(error)
        record(session, device.id, "attestation refused", device.id, row.refused)
    session.add(row)


def _published(session: Session, device: DeviceRow, said: Statement[Running]) -> bool:
    """Says whether the attested build is one that was published here.

    A board may run what a server restored from a backup has forgotten: that is no lie.

    Raises:
        TrustError: It is of another class than enrolled, or the build that it names has other
            files.
    """
    running = said.predicate
    if running.device_class != device.device_class:
        raise TrustError("class", f"it is of a {running.device_class}")
    build = session.get(BuildRow, (running.model, running.release, running.device_class))
    if build is None:
        return False
    if build.manifest_sha256 != running.manifest_sha256:
        raise TrustError("mix", "its manifest is not the one that was published")
    check_build(said, read_manifest(build.manifest))
    return True


def of_device(session: Session, device: str, most: int) -> list[AttestationInfo]:
    """Returns what a board attested, newest first."""
    query = (
        select(AttestationRow)
        .where(AttestationRow.device == device)
        .order_by(col(AttestationRow.received).desc(), col(AttestationRow.seq).desc())
        .limit(most)
    )
    return [_info(each) for each in session.exec(query)]


def _info(row: AttestationRow) -> AttestationInfo:
    return AttestationInfo(
        device=row.device, received=row.received, event=row.event, release=row.release,
        engine=row.engine, manifest=row.manifest, published=row.published, refused=row.refused,
        key=json.loads(row.key), envelope=json.loads(row.envelope),
    )  # fmt: skip
