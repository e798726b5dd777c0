"""What a board's key opens: access for a signed nonce, another key; and how a board is shut out."""

from __future__ import annotations

import json
import time
from typing import Any, TypeVar

from sqlalchemy.exc import IntegrityError
from sqlmodel import Session, col, delete

from kedge_server.audit.service import record
from kedge_server.database import now
from kedge_server.devices import clones
from kedge_server.devices.access import Access
from kedge_server.devices.enrolment import check_key, sign_anew
from kedge_server.devices.tables import DeadKeyRow, DeviceRow, UsedNonceRow
from kedge_server.errors import BusyError, ForbiddenError, RequestError, UnauthorizedError
from kedge_server.replicas import changes
from kedge_server.rollouts import membership
from kedge_server.throttle import Rate, Throttle
from kedge_shared import signing
from kedge_shared.access import (
    ACCESS_LIMIT_BYTES,
    ACCESS_TYPE,
    KEY_CHANGE_TYPE,
    AccessRequest,
    AccessToken,
    KeyChange,
    KeyChanged,
)
from kedge_shared.errors import TrustError

T = TypeVar("T", AccessRequest, KeyChange)

#: A board asks twice an hour, and after each start.
_ASKING = Rate(20, 30.0)


def access(
    session: Session, tokens: Access, throttle: Throttle, envelope: dict[str, Any]
) -> tuple[AccessToken, str | None]:
    """Returns an access token for a board that signed a nonce with its key.

    Returns:
        The token, and the board if it seems to be two.

    Raises:
        UnauthorizedError: There is no such board, it is not signed with its key, or the nonce was
            used, has ended or is none of ours.
        ForbiddenError: The board was revoked.
        BusyError: It asks too often.
    """
    asked, device = _opened(session, envelope, AccessRequest, ACCESS_TYPE)
    _use(session, tokens, asked.nonce)
    wait = throttle.spend(("access", device.id), _ASKING, time.time())
    if wait:
        raise BusyError(f"{device.id} asks for access too often", retry_after=wait)
    clones.started(session, device, asked.program, asked.run)
    suspected = device.id if device.suspected_clone is not None else None
    return tokens.issue(device.id, device.key_id), suspected


def change_key(session: Session, tokens: Access, envelope: dict[str, Any]) -> KeyChanged:
    """Puts a board's new key in the place of its old one, which is never taken again.

    Raises:
        UnauthorizedError: As for :func:`access`; both keys must have signed.
        ForbiddenError: The board or the new key was revoked.
        RequestError: The new key is none.
    """
    asked, device = _opened(session, envelope, KeyChange, KEY_CHANGE_TYPE)
    try:
        fresh = signing.key_from_dict(asked.public_key)
        signing.unseal(envelope, KEY_CHANGE_TYPE, KeyChange, fresh, limit_bytes=ACCESS_LIMIT_BYTES)
    except TrustError as error:
        raise RequestError(f"the new key is not to be trusted: {error}") from None
    _use(session, tokens, asked.nonce)
    if fresh.keyid == device.key_id:
        raise RequestError("that is the key it has")
    old = device.key_id
    _bury(session, device, "changed for another")
    device.key_id, device.public_key = fresh.keyid, json.dumps(asked.public_key)
    # The lasting token of an older agent was given for the old key.
    device.token_hash = None
    check_key(session, device.id, fresh.keyid)
    session.add(device)
    sign_anew(session, device.id)
    changes.note(session, "device", device.id)
    record(session, device.id, "key change", device.id, f"{old[:12]} to {fresh.keyid[:12]}")
    return KeyChanged(device=device.id, fingerprint=fresh.keyid)


def revoke(session: Session, device: DeviceRow, who: str) -> None:
    """Refuses a board from its next request on; its key is never taken again."""
    if device.revoked is not None:
        return
    device.revoked, device.token_hash = time.time(), None
    _bury(session, device, "revoked")
    session.add(device)
    membership.leave(session, device.id, "the board was revoked", now(session))
    changes.note(session, "device", device.id)
    record(session, who, "device revoke", device.id, f"key {device.key_id[:12]}")


def clear(session: Session, device: DeviceRow, who: str) -> None:
    """Says that a board is one: a person has looked."""
    if device.suspected_clone is None:
        return
    why, device.suspected_clone, device.suspicion = device.suspicion, None, ""
    session.add(device)
    changes.note(session, "device", device.id)
    record(session, who, "device clear", device.id, why)


def forget_nonces(session: Session, now: float) -> None:
    """Forgets nonces that would not be taken anyway."""
    session.exec(delete(UsedNonceRow).where(col(UsedNonceRow.expires) < now))


def _opened(
    session: Session, envelope: dict[str, Any], kind: type[T], name: str
) -> tuple[T, DeviceRow]:
    try:
        claimed = signing.peek(envelope, kind)
        device = session.get(DeviceRow, claimed.device)
        if device is None:
            raise UnauthorizedError(f"there is no device {claimed.device}", "enrol it")
        if device.revoked is not None:
            raise ForbiddenError(f"{device.id} was revoked", "an operator decides")
        key = signing.key_from_dict(json.loads(device.public_key))
        found = signing.unseal(envelope, name, kind, key, limit_bytes=ACCESS_LIMIT_BYTES)
    except TrustError as error:
        raise UnauthorizedError(f"the request is not to be trusted: {error}") from None
    return found, device


def _use(session: Session, tokens: Access, nonce: str) -> None:
    """Uses a nonce up.

    Raises:
        UnauthorizedError: It was used before, has ended or is none of ours.
    """
    session.add(UsedNonceRow(nonce=nonce, expires=tokens.nonce_ends(nonce)))
    try:
        session.flush()
    except IntegrityError:
        raise UnauthorizedError("this nonce was used", "ask for another one") from None


def _bury(session: Session, device: DeviceRow, why: str) -> None:
    session.merge(DeadKeyRow(fingerprint=device.key_id, device=device.id, at=time.time(), why=why))
