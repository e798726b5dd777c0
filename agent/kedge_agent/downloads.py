"""Downloads by hash: resumed where they broke off, and nothing is a blob before its hash holds."""

from __future__ import annotations

import asyncio
import hashlib
import os
import random
import time
from collections.abc import Awaitable, Callable
from contextlib import aclosing, suppress
from dataclasses import dataclass
from pathlib import Path

import httpx

from kedge_agent.blobs import BlobStore
from kedge_agent.disk import disk_error, settle
from kedge_agent.network.backoff import BUSY, Backoff
from kedge_agent.network.bandwidth import full_bucket
from kedge_agent.server_client import ANSWER_SECONDS, asked_to_wait, check_encoding, within
from kedge_shared.errors import ServiceError, TrustError
from kedge_shared.pace import LEAST_RATE, LeastRate, Pace

_BACKOFF = Backoff(first_seconds=0.5, longest_seconds=60.0)
#: In a row without a byte between them.
_TRIES = 6
#: A server that wants to be left alone for longer is left to the updater's own rhythm, which
#: hears of newer assignments meanwhile.
_LONGEST_PAUSE_SECONDS = 60.0
_CHUNK_BYTES = 256 * 1024


@dataclass(frozen=True, kw_only=True)
class Patience:
    """How slow a server may be.

    Attributes:
        headers_seconds: Until its headers are there.
        body: What the body must bring after that.
    """

    headers_seconds: float = ANSWER_SECONDS
    body: LeastRate = LEAST_RATE


Sleep = Callable[[float], Awaitable[None]]


PATIENCE = Patience()


class _Restart(Exception):
    """The server did not go on where we were: begin anew."""


class Downloader:
    """Fetches artifacts into the blob store.

    Args:
        http: Connection with authorisation.
        store: Where whole, verified blobs go.
        partial: Folder for what is not whole yet.
        counted: Told of bytes as they arrive.
        patience: How slow the server may be.
        bytes_per_second: No more than that on average; ``None`` is no limit.
        clock: Tells seconds, monotonic.
        sleep: Waits.
    """

    def __init__(
        self,
        http: httpx.AsyncClient,
        store: BlobStore,
        partial: Path,
        counted: Callable[[int], None],
        patience: Patience = PATIENCE,
        bytes_per_second: float | None = None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Sleep = asyncio.sleep,
    ) -> None:
        self._http, self._store, self._partial, self._counted = http, store, partial, counted
        self._patience, self._clock, self._sleep = patience, clock, sleep
        self._bucket = full_bucket(bytes_per_second, clock()) if bytes_per_second else None

    async def fetch(self, sha256: str, length: int) -> None:
        """Brings one artifact; does nothing if it is there whole.

        What is there is hashed once more: a disk that lost a block must not keep a board from
        ever having this file again.

        Args:
            sha256: Its hash.
            length: Its length, bytes; not one more is read.

        Raises:
            TrustError: The bytes are not those of the hash (``hash``) or too many (``length``).
            ServiceError: The server is down, or does not have it.
            StorageError: The disk is full or cannot be written.
        """
        if self._store.has(sha256):
            if await asyncio.to_thread(self._is_whole, sha256, length):
                return
            _remove(self._store.path(sha256))
        path = self._partial / sha256
        left_behind = path.exists()
        await self._persist(path, sha256, length)
        try:
            await asyncio.to_thread(self._finish, path, sha256, length)
        except TrustError:
            if not left_behind:
                raise
            # What an earlier run left may have been torn by a power cut: once more, from zero.
            await self._persist(path, sha256, length)
            await asyncio.to_thread(self._finish, path, sha256, length)

    async def _persist(self, path: Path, sha256: str, length: int) -> None:
        """Goes on until every byte is there, the server refuses or patience ends."""
        failures = 0
        while True:
            before = _size(path)
            try:
                return await self._resume(path, sha256, length)
            except (_Restart, httpx.TransportError) as error:
                lost = ServiceError(f"download of {sha256[:12]} broke off ({type(error).__name__})")
            except ServiceError as error:
                if error.status not in BUSY:
                    raise
                lost = error
            failures = 1 if _size(path) > before else failures + 1
            if failures == _TRIES or (lost.retry_after or 0.0) > _LONGEST_PAUSE_SECONDS:
                raise lost
            await self._sleep(_BACKOFF.wait(failures - 1, random.random(), lost.retry_after))  # noqa: S311

    async def _resume(self, path: Path, sha256: str, length: int) -> None:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            have = _size(path)
        except OSError as error:
            raise disk_error(path, error) from None
        if have >= length:
            return
        headers = {"Accept-Encoding": "identity"}
        if have:
            # If-Range: the rest of these very bytes, or everything.
            headers |= {"Range": f"bytes={have}-", "If-Range": f'"{sha256}"'}
        request = self._http.build_request("GET", f"/api/v1/artifacts/{sha256}", headers=headers)
        answer = self._http.send(request, stream=True)
        async with aclosing(await within(self._patience.headers_seconds, answer)) as body:
            if _is_another_part(body, have):
                _remove(path)
                raise _Restart
            if not body.is_success:
                raise ServiceError(
                    f"server answers {body.status_code} for artifact {sha256[:12]}",
                    status=body.status_code,
                    retry_after=asked_to_wait(body),
                )
            check_encoding(body)
            # 200 instead of 206: the server does not know these bytes by their hash any more, or
            # no ranges at all. It sends everything.
            resumed = body.status_code == httpx.codes.PARTIAL_CONTENT
            await self._write(body, path, have if resumed else 0, length)

    async def _write(self, body: httpx.Response, path: Path, have: int, length: int) -> None:
        pace = Pace(self._patience.body)
        try:
            with path.open("r+b" if have else "wb") as file:
                file.seek(have)
                # In the pieces they come in: what is gathered up is lost when the line breaks.
                # Raw: what a server packs into few bytes is not unpacked before it is limited.
                async for chunk in body.aiter_raw():
                    have += len(chunk)
                    if have > length:
                        raise TrustError("length", f"server sends more than {length} bytes")
                    file.write(chunk)
                    self._counted(len(chunk))
                    pace.take(len(chunk))
                    await self._slow_down(len(chunk))
                file.flush()
                os.fsync(file.fileno())
        except TrustError:
            _remove(path)
            raise
        except OSError as error:
            # A full disk holds not even the journal's word of it: what came makes room.
            with suppress(OSError):
                path.unlink(missing_ok=True)
            raise disk_error(path, error) from None
        if have < length:
            raise _Restart

    async def _slow_down(self, count: int) -> None:
        """Waits as the limit on bandwidth demands; meanwhile TCP's window holds the server."""
        if self._bucket is not None:
            self._bucket, wait = self._bucket.take(count, self._clock())
            if wait:
                await self._sleep(wait)

    def _is_whole(self, sha256: str, length: int) -> bool:
        return _hashed(self._store.path(sha256)) == (sha256, length)

    def _finish(self, path: Path, sha256: str, length: int) -> None:
        try:
            if _hashed(path) != (sha256, length):
                path.unlink()
                raise TrustError("hash", f"artifact {sha256[:12]} was altered on the way or there")
            self._store.root.mkdir(parents=True, exist_ok=True)
            settle(path, self._store.path(sha256))
        except OSError as error:
            raise disk_error(path, error) from None


def _hashed(path: Path) -> tuple[str, int]:
    """Returns hash and length of a file.

    Raises:
        StorageError: It cannot be read.
    """
    digest = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while chunk := file.read(_CHUNK_BYTES):
                digest.update(chunk)
            return digest.hexdigest(), file.tell()
    except OSError as error:
        raise disk_error(path, error) from None


def _remove(path: Path) -> None:
    """Removes a file that is not what it should be.

    Raises:
        StorageError: The disk is read-only.
    """
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise disk_error(path, error) from None


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def _is_another_part(answer: httpx.Response, have: int) -> bool:
    """Says whether an answer is not the part that was asked for."""
    if answer.status_code == httpx.codes.REQUESTED_RANGE_NOT_SATISFIABLE:
        return True
    began = answer.headers.get("Content-Range", "")
    return answer.status_code == httpx.codes.PARTIAL_CONTENT and not (
        began.startswith(f"bytes {have}-")
    )


def backoff_seconds(attempt: int) -> float:
    """Returns how long to wait before the next try: full jitter, capped."""
    return _BACKOFF.wait(attempt, random.random())  # noqa: S311
