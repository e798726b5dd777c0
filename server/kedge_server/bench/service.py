"""Bench jobs: posted by builders, claimed by one worker at a time, answered once.

The server reads jobs but does not vouch for them: it holds no key that a worker would trust.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from typing import Any, cast

from sqlalchemy import CursorResult, Update
from sqlmodel import Session, col, select, update

from kedge_server.artifacts.store import Store
from kedge_server.audit.service import record
from kedge_server.bench.standing import standing
from kedge_server.bench.tables import BenchJobRow
from kedge_server.devices import service as devices
from kedge_server.errors import ConflictError, NotFoundError, RequestError
from kedge_shared import signing, wire
from kedge_shared.bench import (
    JOB_LIFE_SECONDS,
    RESULT_LIMIT_BYTES,
    RESULT_TYPE,
    BenchJob,
    BenchJobInfo,
    BenchResult,
    BenchState,
    BenchTaken,
)
from kedge_shared.errors import TrustError


def post(session: Session, store: Store, envelope: dict[str, Any], who: str) -> BenchJobInfo:
    """Takes a job; the same job again is the same job.

    Raises:
        RequestError: Malformed, expired, good for too long, or a file was not uploaded.
        ConflictError: Another job has this name.
    """
    try:
        job = signing.peek(envelope, BenchJob)
    except TrustError as error:
        raise RequestError(f"bench job is malformed: {error}") from None
    now = time.time()
    if not now < job.expires <= now + JOB_LIFE_SECONDS:
        raise RequestError(f"bench job {job.id} has expired or holds for more than a day")
    for sha256, length in job.lengths.items():
        if not store.claim(sha256, length):
            raise RequestError(f"bench job needs artifact {sha256[:12]}, which was not uploaded")
    text = json.dumps(envelope, sort_keys=True)
    known = session.get(BenchJobRow, job.id)
    if known is not None:
        if known.envelope != text:
            raise ConflictError(f"there is another bench job {job.id}", "give it another name")
        return info(known)
    row = BenchJobRow(
        id=job.id, device_class=job.device_class, envelope=text, posted=now, expires=job.expires
    )
    session.add(row)
    record(session, who, "bench-job", job.id, f"for {job.device_class}")
    return info(row)


def claim(session: Session, device_id: str, lease_seconds: float) -> BenchJobRow | None:
    """Gives a worker the oldest job of its class, or the one that it holds already.

    Who asks again after a lost answer gets the same job. Two workers never hold one: a job is
    taken by compare-and-set on its count of attempts.
    """
    device, now = devices.find(session, device_id), time.time()
    query = (
        select(BenchJobRow)
        .where(BenchJobRow.device_class == device.device_class, BenchJobRow.result == "")
        .where(col(BenchJobRow.expires) > now)
        .order_by(col(BenchJobRow.posted))
    )
    rows: Sequence[BenchJobRow] = session.exec(query).all()
    held = [each for each in rows if each.device == device_id and each.lease_until > now]
    for row in held + [each for each in rows if _standing(each, now) == "waiting"]:
        fresh = row not in held
        seen = (
            update(BenchJobRow)
            .where(col(BenchJobRow.id) == row.id, col(BenchJobRow.attempts) == row.attempts)
            .where(col(BenchJobRow.result) == "")
            .values(device=device_id, lease_until=now + lease_seconds,
                    attempts=row.attempts + fresh)
        )  # fmt: skip
        if _changes(session, seen):
            return row
    return None


def renew(session: Session, device_id: str, job: str, lease_seconds: float) -> None:
    """Keeps a job for the worker that holds it.

    Raises:
        NotFoundError: There is no such job.
        ConflictError: It was answered, or another worker has it by now.
    """
    find(session, job)
    mine = (
        update(BenchJobRow)
        .where(col(BenchJobRow.id) == job, col(BenchJobRow.device) == device_id)
        .where(col(BenchJobRow.result) == "")
        .values(lease_until=time.time() + lease_seconds)
    )
    if not _changes(session, mine):
        raise ConflictError(f"bench job {job} is not this worker's")


def take_result(session: Session, device_id: str, envelope: dict[str, Any]) -> BenchTaken:
    """Takes a worker's answer, once.

    Raises:
        RequestError: Malformed, not signed by the device, or of another device.
        NotFoundError: There is no such job.
        ConflictError: Another worker has the job or has answered it, or the answer is another.
    """
    device = devices.find(session, device_id)
    key = signing.key_from_dict(json.loads(device.public_key))
    try:
        result = signing.unseal(
            envelope, RESULT_TYPE, BenchResult, key, limit_bytes=RESULT_LIMIT_BYTES
        )
    except TrustError as error:
        raise RequestError(f"bench result is not to be trusted: {error}") from None
    if result.device != device_id:
        raise RequestError(f"bench result is of {result.device}, not of {device_id}")
    row, text = find(session, result.job), wire.encode(result).decode()
    mine = (
        update(BenchJobRow)
        .where(col(BenchJobRow.id) == row.id, col(BenchJobRow.device) == device_id)
        .where(col(BenchJobRow.result) == "")
        .values(result=text)
    )
    if _changes(session, mine):
        failure = result.failure
        record(session, device_id, "bench-result", row.id, failure.code if failure else "measured")
        return BenchTaken(fresh=True)
    session.refresh(row)
    if row.device == device_id and row.result == text:
        return BenchTaken(fresh=False)
    raise ConflictError(f"bench job {row.id} is not this worker's, or was answered otherwise")


def withdraw(session: Session, job: str, who: str) -> BenchJobInfo:
    """Takes back a job that nobody waits for any more; what is running may still answer.

    Raises:
        NotFoundError: There is no such job.
    """
    row = find(session, job)
    row.expires = min(row.expires, int(time.time()))
    session.add(row)
    record(session, who, "bench-withdraw", job)
    return info(row)


def find(session: Session, job: str) -> BenchJobRow:
    """Returns a job.

    Raises:
        NotFoundError: There is none of that name.
    """
    row = session.get(BenchJobRow, job)
    if row is None:
        raise NotFoundError(f"there is no bench job {job}")
    return row


def newest(session: Session, most: int) -> list[BenchJobInfo]:
    """Returns the newest jobs, newest first."""
    query = select(BenchJobRow).order_by(col(BenchJobRow.posted).desc()).limit(most)
    return [info(each) for each in session.exec(query)]


def info(row: BenchJobRow) -> BenchJobInfo:
    """Returns what builders see of a job."""
    return BenchJobInfo(
        id=row.id, device_class=row.device_class, state=_standing(row, time.time()),
        device=row.device, attempts=row.attempts, posted=row.posted, expires=row.expires,
        result=wire.decode(row.result.encode(), BenchResult, "stored result")
        if row.result
        else None,
    )  # fmt: skip


def _standing(row: BenchJobRow, now: float) -> BenchState:
    return standing(
        answered=bool(row.result), expires=row.expires, lease_until=row.lease_until,
        attempts=row.attempts, now=now,
    )  # fmt: skip


def _changes(session: Session, statement: Update) -> bool:
    """Carries out a compare-and-set and says whether it hit."""
    options = {"synchronize_session": False}
    done = session.execute(statement, execution_options=options)
    return cast("CursorResult[Any]", done).rowcount == 1
