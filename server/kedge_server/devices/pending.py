"""Boards that wait for a person: a bounded queue that empties itself."""

from __future__ import annotations

import time
from dataclasses import dataclass

from sqlmodel import Session, col, delete, func, select

from kedge_server.audit.service import record
from kedge_server.devices.tables import AnnouncedKeyRow, PendingDeviceRow
from kedge_server.errors import BusyError, ForbiddenError, NotFoundError
from kedge_server.throttle import network
from kedge_shared import wire
from kedge_shared.admission import AnnouncedKey, AnnouncedKeys, PendingDevice, Waiting
from kedge_shared.protocol import Enrolment

#: One address (of IPv6 one /64) may not fill the queue for everybody.
_OF_ONE_ADDRESS = 100
_FULL_SECONDS = 600.0
#: Fingerprints may be shortened when they are typed, to no less than this.
_LEAST_DIGITS = 12


@dataclass(frozen=True)
class Limits:
    """How the queue is bounded.

    Attributes:
        most: Boards that wait at once.
        seconds: After so long without asking again a board is forgotten.
        ask_again_seconds: What boards are told to wait.
    """

    most: int
    seconds: float
    ask_again_seconds: float


def ask(
    session: Session, enrolment: Enrolment, fingerprint: str, address: str, limits: Limits
) -> Waiting:
    """Lets a board wait, or notes that it asked again.

    Raises:
        BusyError: Too many wait, in all or from one address.
        ForbiddenError: A person has rejected it.
    """
    now = time.time()
    row = session.get(PendingDeviceRow, fingerprint)
    if row is None:
        forget_old(session, now, limits)
        _check_room(session, network(address), limits)
        row = PendingDeviceRow(fingerprint=fingerprint, name="", enrolment="", address="",
                               first_asked=now, last_asked=now)  # fmt: skip
    if row.state == "rejected":
        raise ForbiddenError(
            f"key {fingerprint[:12]} was rejected", "an operator may approve it after all"
        )
    row.name, row.enrolment = enrolment.name, wire.encode(enrolment).decode()
    row.address, row.last_asked = network(address), now
    session.add(row)
    return Waiting(fingerprint=fingerprint, ask_again_seconds=limits.ask_again_seconds)


def waiting(session: Session) -> list[PendingDevice]:
    """Returns who waits or was rejected, oldest first."""
    query = select(PendingDeviceRow).order_by(col(PendingDeviceRow.first_asked))
    return [info(each) for each in session.exec(query)]


def count(session: Session) -> int:
    """Returns how many wait for a person."""
    waits = select(func.count()).where(PendingDeviceRow.state == "waiting")
    return int(session.exec(waits).one())


def take(session: Session, fingerprint: str) -> Enrolment:
    """Takes a board out of the queue; what it asked for is the approver's to admit.

    Raises:
        NotFoundError: None waits with such a key, or several do.
    """
    row = find(session, fingerprint)
    session.delete(row)
    return wire.decode(row.enrolment.encode(), Enrolment, "stored enrolment")


def reject(session: Session, fingerprint: str, who: str) -> PendingDevice:
    """Refuses a board until the queue forgets it.

    Raises:
        NotFoundError: None waits with such a key, or several do.
    """
    row = find(session, fingerprint)
    row.state = "rejected"
    session.add(row)
    record(session, who, "device reject", row.name, f"key {row.fingerprint[:12]}")
    return info(row)


def find(session: Session, fingerprint: str) -> PendingDeviceRow:
    """Returns who waits with a key, named by its fingerprint or the beginning of it.

    Raises:
        NotFoundError: Nobody, or several, or too little of it.
    """
    if len(fingerprint) < _LEAST_DIGITS:
        raise NotFoundError(f"{fingerprint} is too short", f"give {_LEAST_DIGITS} digits or more")
    rows = session.exec(
        select(PendingDeviceRow).where(
            col(PendingDeviceRow.fingerprint).startswith(fingerprint, autoescape=True)
        )
    ).all()
    if len(rows) != 1:
        raise NotFoundError(
            f"{'nobody waits' if not rows else 'several wait'} with key {fingerprint}",
            "`kedge device pending`",
        )
    found: PendingDeviceRow = rows[0]
    return found


def announce(session: Session, keys: AnnouncedKeys, who: str) -> list[AnnouncedKey]:
    """Takes boards with these keys in without being asked; those that wait come in as they ask."""
    now, found = time.time(), []
    for each in keys.fingerprints:
        row = session.get(AnnouncedKeyRow, each)
        if row is None:
            row = AnnouncedKeyRow(fingerprint=each, note=keys.note, added=now, added_by=who)
            session.add(row)
        waits = session.get(PendingDeviceRow, each)
        if waits is not None:
            session.delete(waits)
        found.append(announced_info(row))
    record(session, who, "keys announce", str(len(found)), keys.note)
    return found


def announced(session: Session, most: int | None = None) -> list[AnnouncedKey]:
    """Returns the keys that were announced, all or some."""
    query = select(AnnouncedKeyRow).order_by(col(AnnouncedKeyRow.added)).limit(most)
    return [announced_info(each) for each in session.exec(query)]


def withdraw(session: Session, fingerprint: str, who: str) -> AnnouncedKey:
    """Takes an announcement back; a board that came in by it stays.

    Raises:
        NotFoundError: It was not announced.
    """
    row = session.get(AnnouncedKeyRow, fingerprint)
    if row is None:
        raise NotFoundError(f"key {fingerprint} was not announced", "`kedge device announced`")
    session.delete(row)
    record(session, who, "keys withdraw", row.device, f"key {fingerprint[:12]}")
    return announced_info(row)


def forget_old(session: Session, now: float, limits: Limits) -> None:
    """Forgets boards that do not ask any more, and rejections in their time."""
    late = col(PendingDeviceRow.last_asked) < now - limits.seconds
    session.exec(delete(PendingDeviceRow).where(late))


def info(row: PendingDeviceRow) -> PendingDevice:
    """Returns what an operator sees of who waits."""
    said = wire.decode(row.enrolment.encode(), Enrolment, "stored enrolment")
    state: object = row.state
    return PendingDevice(
        fingerprint=row.fingerprint, name=said.name, device_class=said.device_class,
        tags=said.tags, facts=said.facts, address=row.address, first_asked=row.first_asked,
        last_asked=row.last_asked, state=state,  # type: ignore[arg-type]
    )  # fmt: skip


def announced_info(row: AnnouncedKeyRow) -> AnnouncedKey:
    """Returns what an operator sees of an announced key."""
    return AnnouncedKey(
        fingerprint=row.fingerprint, note=row.note, added=row.added, added_by=row.added_by,
        device=row.device,
    )  # fmt: skip


def _check_room(session: Session, near: str, limits: Limits) -> None:
    count = select(func.count()).select_from(PendingDeviceRow)
    of_one = session.exec(count.where(PendingDeviceRow.address == near)).one()
    if session.exec(count).one() >= limits.most or of_one >= _OF_ONE_ADDRESS:
        raise BusyError("too many boards wait for approval", retry_after=_FULL_SECONDS)
