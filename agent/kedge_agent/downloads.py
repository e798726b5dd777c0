"""Downloads by hash: resumed where they broke off, and nothing is a blob before its hash holds."""

from __future__ import annotations

import asyncio
import hashlib
import os
import random
from collections.abc import Callable
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path

import httpx

from kedge_agent.blobs import BlobStore
from kedge_agent.disk import disk_error, settle
from kedge_agent.server_client import ANSWER_SECONDS, within
from kedge_shared.errors import ServiceError, TrustError
from kedge_shared.pace import LEAST_RATE, LeastRate, Pace

#: Full jitter: a random wait up to a cap that doubles (Brooker, "Exponential backoff and jitter",
#: AWS Architecture Blog 2015), seconds.
_FIRST_WAIT, _LONGEST_WAIT = 0.5, 60.0
_TRIES = 6
_RETRY_STATUS = frozenset({408, 425, 429, 500, 502, 503, 504})
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
    """

    def __init__(
        self,
        http: httpx.AsyncClient,
        store: BlobStore,
        partial: Path,
        counted: Callable[[int], None],
        patience: Patience = PATIENCE,
    ) -> None:
        self._http, self._store, self._partial, self._counted = http, store, partial, counted
        self._patience = patience

    async def fetch(self, sha256: str, length: int) -> None:
        """Brings one artifact; does nothing if it is there.

        Args:
            sha256: Its hash.
            length: Its length, bytes; not one more is read.

        Raises:
            TrustError: The bytes are not those of the hash (``hash``) or too many (``length``).
            ServiceError: The server is down, or does not have it.
            StorageError: The disk is full or cannot be written.
        """
        if self._store.has(sha256):
            return
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
        for attempt in range(_TRIES):
            try:
                return await self._resume(path, sha256, length)
            except (_Restart, httpx.TransportError) as error:
                if attempt == _TRIES - 1:
                    raise ServiceError(
                        f"download of {sha256[:12]} broke off ({type(error).__name__})"
                    ) from None
            except ServiceError as error:
                if error.status not in _RETRY_STATUS or attempt == _TRIES - 1:
                    raise
            await asyncio.sleep(backoff_seconds(attempt))
        raise RuntimeError("the last try returns or raises")

    async def _resume(self, path: Path, sha256: str, length: int) -> None:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            have = path.stat().st_size if path.exists() else 0
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
            if body.status_code == httpx.codes.REQUESTED_RANGE_NOT_SATISFIABLE:
                path.unlink(missing_ok=True)
                raise _Restart
            if not body.is_success:
                raise ServiceError(
                    f"server answers {body.status_code} for artifact {sha256[:12]}",
                    status=body.status_code,
                )
            resumed = body.status_code == httpx.codes.PARTIAL_CONTENT
            await self._write(body, path, have if resumed else 0, length)

    async def _write(self, body: httpx.Response, path: Path, have: int, length: int) -> None:
        pace = Pace(self._patience.body)
        try:
            with path.open("r+b" if have else "wb") as file:
                file.seek(have)
                # In the pieces they come in: what is gathered up is lost when the line breaks.
                async for chunk in body.aiter_bytes():
                    have += len(chunk)
                    if have > length:
                        raise TrustError("length", f"server sends more than {length} bytes")
                    file.write(chunk)
                    self._counted(len(chunk))
                    pace.take(len(chunk))
                file.flush()
                os.fsync(file.fileno())
        except TrustError:
            path.unlink(missing_ok=True)
            raise
        except OSError as error:
            raise disk_error(path, error) from None
        if have < length:
            raise _Restart

    def _finish(self, path: Path, sha256: str, length: int) -> None:
        digest = hashlib.sha256()
        try:
            with path.open("rb") as file:
                while chunk := file.read(_CHUNK_BYTES):
                    digest.update(chunk)
                size = file.tell()
            if digest.hexdigest() != sha256 or size != length:
                path.unlink()
                raise TrustError("hash", f"artifact {sha256[:12]} was altered on the way or there")
            self._store.root.mkdir(parents=True, exist_ok=True)
            settle(path, self._store.path(sha256))
        except OSError as error:
            raise disk_error(path, error) from None


def backoff_seconds(attempt: int) -> float:
    """Returns how long to wait before the next try: full jitter, capped."""
    return random.uniform(0, min(_LONGEST_WAIT, _FIRST_WAIT * 2**attempt))  # noqa: S311
