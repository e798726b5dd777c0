"""Ways into the fleet: a one-time token, a key that was announced, a person's approval."""

from __future__ import annotations

import json
import secrets
import time
from dataclasses import dataclass
from typing import Any

from sqlmodel import Session

from kedge_server.audit.service import record
from kedge_server.database import now
from kedge_server.devices import pending
from kedge_server.devices.facts import facts_of
from kedge_server.devices.tables import (
    AnnouncedKeyRow,
    AssignmentRow,
    DeadKeyRow,
    DeviceRow,
    EnrolmentTokenRow,
)
from kedge_server.errors import ConflictError, ForbiddenError, RequestError, UnauthorizedError
from kedge_server.events import kinds
from kedge_server.events.service import emit
from kedge_server.replicas import changes
from kedge_server.rollouts import membership, reports
from kedge_server.tokens import token_hash
from kedge_shared import signing, wire
from kedge_shared.admission import Waiting
from kedge_shared.api import EnrolmentToken, TokenRequest
from kedge_shared.errors import TrustError
from kedge_shared.protocol import (
    ENROLMENT_TYPE,
    REPORT_LIMIT_BYTES,
    DeviceFacts,
    Enrolled,
    Enrolment,
)


@dataclass(frozen=True)
class Admitted:
    """A board that is one of the fleet.

    Attributes:
        answer: What it is told.
        token_hash: Of its lasting token, or ``None``.
        fingerprint: Of its key.
    """

    answer: Enrolled
    token_hash: str | None
    fingerprint: str


def make_tokens(session: Session, request: TokenRequest, who: str) -> list[EnrolmentToken]:
    """Makes one-time enrolment tokens; only their hashes are stored."""
    expires = time.time() + request.ttl_seconds
    made = [EnrolmentToken(token=secrets.token_urlsafe(24), expires=expires)
            for _ in range(request.count)]  # fmt: skip
    for each in made:
        session.add(EnrolmentTokenRow(token_hash=token_hash(each.token), expires=expires))
    record(session, who, "enrolment-tokens", str(request.count))
    return made


def opened(envelope: dict[str, Any]) -> Enrolment:
    """Returns an enrolment that is signed with the key it brings.

    Raises:
        RequestError: It is malformed, or signed with another.
    """
    try:
        claimed = signing.peek(envelope, Enrolment)
        key = signing.key_from_dict(claimed.public_key)
        return signing.unseal(
            envelope, ENROLMENT_TYPE, Enrolment, key, limit_bytes=REPORT_LIMIT_BYTES
        )
    except TrustError as error:
        raise RequestError(f"enrolment is not to be trusted: {error}") from None


def with_token(session: Session, token: str, envelope: dict[str, Any]) -> Admitted:
    """Enrols a device that has a one-time token and proves that it holds the key it brings.

    Raises:
        UnauthorizedError: The token is unknown, used or expired.
        RequestError: The request is malformed or not signed by its own key.
        ConflictError: The name belongs to a device with another key.
        ForbiddenError: The key was revoked.
    """
    spent = UnauthorizedError(
        "this enrolment token is unknown, used or expired", "make one: kedge device token"
    )
    row = session.get(EnrolmentTokenRow, token_hash(token))
    if row is None or row.expires < time.time():
        raise spent
    if row.used_by is not None and not _unheard(session, row.used_by, envelope):
        raise spent
    enrolment = opened(envelope)
    admitted = admit(session, enrolment, enrolment.name)
    row.used_by = enrolment.name
    session.add(row)
    return admitted


def _unheard(session: Session, name: str, envelope: dict[str, Any]) -> bool:
    """Says whether it is the board that used the token, which never read the answer.

    Power may go between the answer and the board's disk. Only a board that fetches its access by
    signing is answered again: another who sends its request a second time gains nothing.
    """
    device = session.get(DeviceRow, name)
    if device is None or device.last_seen is not None:
        return False
    enrolment = opened(envelope)
    same = (enrolment.name, fingerprint_of(enrolment)) == (name, device.key_id)
    return enrolment.renews and same


def without_token(
    session: Session, envelope: dict[str, Any], address: str, limits: pending.Limits
) -> Admitted | Waiting:
    """Enrols a device whose key was announced, or lets it wait for a person.

    Nothing that is answered here opens a door: such a device fetches its access token by signing a
    nonce, so that a request which is sent again by another brings that other nothing.

    Raises:
        UnauthorizedError: An older agent's, which cannot do that.
        RequestError: The request is malformed or not signed by its own key.
        ConflictError: The name belongs to a device with another key.
        ForbiddenError: The key was revoked, or a person has rejected it.
        BusyError: Too many wait.
    """
    enrolment = opened(envelope)
    if not enrolment.renews:
        raise UnauthorizedError("no enrolment token", "send 'Authorization: Bearer TOKEN'")
    fingerprint = fingerprint_of(enrolment)
    check_key(session, enrolment.name, fingerprint)
    known = session.get(DeviceRow, enrolment.name)
    if known is not None and known.revoked is None:
        # Only a token or a person changes what is known of a board.
        answer = Enrolled(device=known.id, token="")
        return Admitted(answer, known.token_hash, fingerprint)
    announced = session.get(AnnouncedKeyRow, fingerprint)
    if announced is not None and announced.device in {"", enrolment.name}:
        announced.device = enrolment.name
        session.add(announced)
        return admit(session, enrolment, f"{enrolment.name}, announced by {announced.added_by}")
    return pending.ask(session, enrolment, fingerprint, address, limits)


def admit(session: Session, enrolment: Enrolment, who: str) -> Admitted:
    """Makes a device one of the fleet, or takes up what it says of itself now.

    Raises:
        ConflictError: The name belongs to a device with another key.
        ForbiddenError: The key was revoked.
    """
    fingerprint = fingerprint_of(enrolment)
    membership.settle(session)
    check_key(session, enrolment.name, fingerprint)
    device = session.get(DeviceRow, enrolment.name)
    secret = "" if enrolment.renews else secrets.token_urlsafe(32)
    if device is None:
        device = DeviceRow(id=enrolment.name, device_class="", key_id="", public_key="",
                           facts="", enrolled=time.time())  # fmt: skip
    elif device.key_id != fingerprint:
        sign_anew(session, device.id)
    device.key_id, device.revoked = fingerprint, None
    device.device_class, device.serves = enrolment.device_class, enrolment.serves
    device.public_key = json.dumps(enrolment.public_key)
    device.token_hash = token_hash(secret) if secret else None
    device.tags = json.dumps(enrolment.tags)
    device.facts = wire.encode(enrolment.facts).decode()
    session.add(device)
    session.flush()
    changes.note(session, "device", device.id)
    record(session, who, "enrol", device.id, f"{device.device_class}, key {fingerprint[:12]}")
    data = {"device_class": device.device_class, "serves": device.serves}
    emit(session, kinds.DEVICE_ENROLLED, device.id, data, time.time())
    if device.serves:
        reports.late_device(session, device, now(session))
    return Admitted(Enrolled(device=device.id, token=secret), device.token_hash, fingerprint)


def hear(session: Session, device: DeviceRow, facts: DeviceFacts | None) -> None:
    """Takes what a report says that its board is; a release that did not fit before may do so.

    Only an agent reports: a board that was let in to measure serves from then on.

    Args:
        session: Of the batch that the report is in.
        device: Whose report it is.
        facts: What the report says, if anything.
    """
    known = facts_of(device.facts)
    said = known if facts is None else facts
    if device.serves and said == known:
        return
    membership.settle(session)
    device.facts, device.serves = wire.encode(said).decode(), True
    session.add(device)
    session.flush()
    changes.note(session, "device", device.id)
    data = {"device_class": device.device_class, "agent": said.agent}
    emit(session, kinds.DEVICE_CHANGED, device.id, data, time.time())
    reports.late_device(session, device, now(session))


def fingerprint_of(enrolment: Enrolment) -> str:
    """Returns the fingerprint of the key of an enrolment that was checked."""
    return str(enrolment.public_key["keyid"])


def check_key(session: Session, name: str, fingerprint: str) -> None:
    """Checks that a board of that name may have that key.

    Raises:
        ForbiddenError: The key was revoked or changed for another.
        ConflictError: The name belongs to another key. A revoked board's does not any more: with
            another key it may come back.
    """
    dead = session.get(DeadKeyRow, fingerprint)
    if dead is not None:
        raise ForbiddenError(
            f"key {fingerprint[:12]} of {dead.device} was {dead.why}", "make another key"
        )
    device = session.get(DeviceRow, name)
    if device is not None and device.key_id != fingerprint and device.revoked is None:
        raise ConflictError(f"{name} is enrolled with another key", "give this board another name")


def sign_anew(session: Session, device: str) -> None:
    """Has the next poll sign for the key that the board has now."""
    row = session.get(AssignmentRow, device)
    if row is not None:
        row.expires = 0
        session.add(row)
