"""Where artifacts lie: the port, and the content-addressed folder."""

from __future__ import annotations

import errno
import hashlib
import os
import re
import secrets
import time
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Protocol

from starlette.responses import FileResponse, Response

from kedge_server.errors import FullError, NotFoundError, RequestError, TooLargeError
from kedge_shared.ids import SHA256_PATTERN

_NAME = re.compile(SHA256_PATTERN)
#: Uploads that were broken off are removed at a start, if no other server can be at them.
_STALE_SECONDS = 86400


class Store(Protocol):
    """Immutable bytes, named by their SHA-256. Names are checked before they are looked for."""

    def has(self, sha256: str) -> bool:
        """Says whether an artifact is there."""

    def claim(self, sha256: str, length: int | None = None) -> bool:
        """Says whether an artifact is there (and so long), and keeps collection off it."""

    def length(self, sha256: str) -> int:
        """Returns an artifact's length, bytes.

        Raises:
            NotFoundError: It is not there.
        """

    def read(self, sha256: str, limit_bytes: int) -> bytes:
        """Returns a small artifact whole.

        Raises:
            NotFoundError: It is not there.
            TooLargeError: It is larger than ``limit_bytes``.
        """

    def add(self, data: bytes) -> str:
        """Stores bytes that the server itself holds; returns their hash."""

    async def receive(self, sha256: str, body: AsyncIterator[bytes]) -> bool:
        """Stores an upload; returns whether it is new.

        Raises:
            RequestError: The bytes are not those of the name.
            TooLargeError: More than the limit.
            FullError: The disk is full.
            AwayError: The store cannot be used now.
        """

    def answer(self, sha256: str, headers: Mapping[str, str]) -> Response:
        """Returns what sends an artifact, or the range that ``headers`` ask for.

        Raises:
            NotFoundError: It is not there.
        """


def check(sha256: str) -> str:
    """Returns a name that is a SHA-256.

    Raises:
        RequestError: It is not.
    """
    if not _NAME.match(sha256):
        raise RequestError("that is no SHA-256", "write 64 hexadecimal digits, lower case")
    return sha256


def immutable_headers(sha256: str) -> dict[str, str]:
    """Returns the headers of bytes that stand under their own hash: they never change."""
    return {"ETag": f'"{sha256}"', "Accept-Ranges": "bytes",
            "Cache-Control": "private, max-age=31536000, immutable"}  # fmt: skip


class ArtifactStore:
    """Files under ``root/ab/abcd…``; a name is given only to whole, hashed, synced bytes.

    Args:
        root: The folder; made when missing.
        limit_bytes: Largest artifact.
        alone: No other server uses the folder.
    """

    def __init__(self, root: Path, limit_bytes: int, alone: bool = True) -> None:
        self._root, self._limit = root, limit_bytes
        (root / "incoming").mkdir(parents=True, exist_ok=True)
        for stale in (root / "incoming").iterdir():
            # Servers may share the folder: another one may be writing this very file.
            if alone or time.time() - stale.stat().st_mtime > _STALE_SECONDS:
                stale.unlink(missing_ok=True)

    def path(self, sha256: str) -> Path:
        """Returns where an artifact lies or would lie.

        Raises:
            RequestError: Not a SHA-256.
        """
        return self._root / check(sha256)[:2] / sha256

    def has(self, sha256: str) -> bool:
        """Says whether an artifact is there."""
        return self.path(sha256).is_file()

    def claim(self, sha256: str, length: int | None = None) -> bool:
        """Says whether an artifact is there (and so long), and keeps collection off it for a while.

        Whoever is about to need one asks by this, so that nothing is collected between the answer
        and the publication that rests on it (kedge_server.operation.collect).
        """
        path = self.path(sha256)
        try:
            os.utime(path)
            return length is None or path.stat().st_size == length
        except FileNotFoundError:
            return False

    def length(self, sha256: str) -> int:
        """Returns an artifact's length, bytes.

        Raises:
            NotFoundError: It is not there.
        """
        try:
            return self.path(sha256).stat().st_size
        except OSError:
            raise NotFoundError(f"artifact {sha256[:12]} is not here") from None

    def read(self, sha256: str, limit_bytes: int) -> bytes:
        """Returns a small artifact whole.

        Raises:
            NotFoundError: It is not there.
            TooLargeError: It is larger than ``limit_bytes``.
        """
        if self.length(sha256) > limit_bytes:
            raise TooLargeError(f"artifact {sha256[:12]} is larger than {limit_bytes} bytes")
        return self.path(sha256).read_bytes()

    def add(self, data: bytes) -> str:
        """Stores bytes that the server itself holds; returns their hash."""
        sha256 = hashlib.sha256(data).hexdigest()
        scratch = self._root / "incoming" / secrets.token_hex(8)
        with scratch.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        self._settle(scratch, self.path(sha256))
        return sha256

    async def receive(self, sha256: str, body: AsyncIterator[bytes]) -> bool:
        """Stores an upload; returns whether it is new.

        Raises:
            RequestError: The bytes are not those of the name.
            TooLargeError: More than the limit.
            FullError: The disk is full.
        """
        target = self.path(sha256)
        scratch = self._root / "incoming" / secrets.token_hex(8)
        digest, total = hashlib.sha256(), 0
        try:
            with scratch.open("wb") as file:
                async for chunk in body:
                    total += len(chunk)
                    if total > self._limit:
                        raise TooLargeError(f"artifact is larger than {self._limit} bytes")
                    digest.update(chunk)
                    file.write(chunk)
                file.flush()
                os.fsync(file.fileno())
            if digest.hexdigest() != sha256:
                raise RequestError("the bytes are not those of the name", "upload the file again")
            known = target.is_file()
            self._settle(scratch, target)
            return not known
        except OSError as error:
            if error.errno in {errno.ENOSPC, errno.EDQUOT}:
                raise FullError("the server's disk is full", "free space on the server") from None
            raise
        finally:
            scratch.unlink(missing_ok=True)

    def answer(self, sha256: str, headers: Mapping[str, str]) -> Response:
        """Sends the file; Starlette sees to ranges (206, 416; If-Range holds the hash)."""
        self.length(sha256)  # 404 when it is not here
        return FileResponse(
            self.path(sha256),
            media_type="application/octet-stream",
            headers=immutable_headers(sha256),
        )

    def _settle(self, scratch: Path, target: Path) -> None:
        target.parent.mkdir(exist_ok=True)
        scratch.replace(target)
        for folder in (target.parent, self._root):
            fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
            try:
                os.fsync(fd)
            finally:
                os.close(fd)
