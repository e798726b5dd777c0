"""Artifacts in S3-compatible storage, by obstore.

Bytes pass through the server in both directions, and it alone holds the storage's credentials: it
checks the hash of what comes in and who may have what goes out. The object gets its name when the
last byte has been checked; an upload that is broken off leaves no object.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import AsyncIterator, Callable, Mapping
from datetime import timedelta
from typing import Any, TypeVar

from starlette.responses import Response, StreamingResponse

from kedge_server.artifacts.ranges import UnsatisfiableError, asked
from kedge_server.artifacts.store import check, immutable_headers
from kedge_server.errors import BusyError, NotFoundError, RequestError, TooLargeError
from kedge_shared.errors import InputError

T = TypeVar("T")

_CHUNK_BYTES = 5 * 2**20
_TIMEOUT, _RETRY_SECONDS = timedelta(seconds=30), 20.0
_AWAY_SECONDS = 10


class BucketStore:
    """Objects ``PREFIX/ab/abcd…`` of a bucket.

    Credentials and endpoint are obstore's: ``AWS_ACCESS_KEY_ID``, ``AWS_SECRET_ACCESS_KEY``,
    ``AWS_REGION``, ``AWS_ENDPOINT_URL``, ``AWS_ALLOW_HTTP``, or the machine's role.

    Args:
        url: ``s3://BUCKET[/PREFIX]``.
        limit_bytes: Largest artifact.
        retry_seconds: How long a storage that does not answer is asked again.

    Raises:
        InputError: obstore is missing, or the bucket cannot be used as it is named.
    """

    def __init__(self, url: str, limit_bytes: int, retry_seconds: float = _RETRY_SECONDS) -> None:
        try:
            import obstore
            from obstore.exceptions import BaseError
            from obstore.store import S3Store
        except ImportError:
            raise InputError(
                "S3 storage needs obstore", "install it with: pip install 'kedge[s3]'"
            ) from None
        self._obstore: Any = obstore
        self._limit, self._error = limit_bytes, BaseError
        retries: Any = {"max_retries": 3, "retry_timeout": timedelta(seconds=retry_seconds)}
        # obstore reads this variable itself only where it is given no options.
        plain = os.environ.get("AWS_ALLOW_HTTP", "").lower() == "true"
        options: Any = {"timeout": _TIMEOUT, "allow_http": plain}
        try:
            self._store = S3Store.from_url(url, client_options=options, retry_config=retries)
        except BaseError as error:
            raise InputError(f"storage {url} cannot be used: {_first(error)}") from None

    def has(self, sha256: str) -> bool:
        """Says whether an artifact is there."""
        try:
            self.length(sha256)
        except NotFoundError:
            return False
        return True

    def length(self, sha256: str) -> int:
        """Returns an artifact's length, bytes."""
        found = self._ask(sha256, lambda path: self._obstore.head(self._store, path))
        return int(found["size"])

    def read(self, sha256: str, limit_bytes: int) -> bytes:
        """Returns a small artifact whole."""
        if self.length(sha256) > limit_bytes:
            raise TooLargeError(f"artifact {sha256[:12]} is larger than {limit_bytes} bytes")
        return bytes(self._ask(sha256, lambda path: self._obstore.get(self._store, path).bytes()))

    def add(self, data: bytes) -> str:
        """Stores bytes that the server itself holds; returns their hash."""
        sha256 = hashlib.sha256(data).hexdigest()
        self._ask(sha256, lambda path: self._obstore.put(self._store, path, data))
        return sha256

    async def receive(self, sha256: str, body: AsyncIterator[bytes]) -> bool:
        """Streams an upload into the bucket; what is wrong with it leaves no object."""
        path, upload = _path(sha256), _Upload(sha256, self._limit, body)
        try:
            fresh = not await self._has(path)
            await self._obstore.put_async(
                self._store, path, upload.chunks(), chunk_size=_CHUNK_BYTES
            )
        # Boundary: obstore raises its own error, of whatever class, for one of the stream's.
        except Exception as error:
            if upload.error is not None:
                raise upload.error from None
            if isinstance(error, self._error | OSError):
                raise _away(error) from None
            raise
        return fresh

    async def _has(self, path: str) -> bool:
        try:
            await self._obstore.head_async(self._store, path)
        except FileNotFoundError:
            return False
        return True

    def answer(self, sha256: str, headers: Mapping[str, str]) -> Response:
        """Streams the object, or the range that is asked for, out of the bucket."""
        length, fixed = self.length(sha256), immutable_headers(sha256)
        try:
            part = asked(
                headers.get("range", ""), headers.get("if-range", ""), fixed["ETag"], length
            )
        except UnsatisfiableError:
            return Response(status_code=416, headers={"Content-Range": f"bytes */{length}"})
        first, end = part or (0, length)
        fixed["Content-Length"] = str(end - first)
        if part is not None:
            fixed["Content-Range"] = f"bytes {first}-{end - 1}/{length}"
        return StreamingResponse(
            self._stream(_path(sha256), first, end), headers=fixed,
            status_code=200 if part is None else 206, media_type="application/octet-stream",
        )  # fmt: skip

    async def _stream(self, path: str, first: int, end: int) -> AsyncIterator[bytes]:
        if first == end:
            return
        found = await self._obstore.get_async(self._store, path, options={"range": (first, end)})
        async for chunk in found.stream():
            yield bytes(chunk)

    def _ask(self, sha256: str, work: Callable[[str], T]) -> T:
        path = _path(sha256)
        try:
            return work(path)
        except FileNotFoundError:
            raise NotFoundError(f"artifact {sha256[:12]} is not here") from None
        except (self._error, OSError) as error:
            raise _away(error) from None


class _Upload:
    """A body on its way: counted, hashed, and broken off where it is not what it should be.

    Attributes:
        error: Why it was broken off.
    """

    def __init__(self, sha256: str, limit_bytes: int, body: AsyncIterator[bytes]) -> None:
        self._name, self._limit, self._body = sha256, limit_bytes, body
        self.error: Exception | None = None

    async def chunks(self) -> AsyncIterator[bytes]:
        """Returns the body; raises in its midst or at its end where it must not be stored."""
        try:
            async for each in self._checked():
                yield each
        # Boundary: told by receive(), whatever the storage's client makes of it.
        except Exception as error:
            self.error = error
            raise

    async def _checked(self) -> AsyncIterator[bytes]:
        digest, total = hashlib.sha256(), 0
        async for chunk in self._body:
            total += len(chunk)
            if total > self._limit:
                raise TooLargeError(f"artifact is larger than {self._limit} bytes")
            digest.update(chunk)
            if chunk:
                yield chunk
        if digest.hexdigest() != self._name:
            raise RequestError("the bytes are not those of the name", "upload the file again")


def _path(sha256: str) -> str:
    return f"{check(sha256)[:2]}/{sha256}"


def _away(error: Exception) -> BusyError:
    return BusyError(f"the storage cannot be used now: {_first(error)}", "ask again", _AWAY_SECONDS)


def _first(error: Exception) -> str:
    return str(error).strip().partition("\n")[0][:200]
