"""The content-addressed folder."""

from __future__ import annotations

import errno
import hashlib
import os
import re
import secrets
from collections.abc import AsyncIterator
from pathlib import Path

from kedge_server.errors import FullError, NotFoundError, RequestError, TooLargeError
from kedge_shared.ids import SHA256_PATTERN

_NAME = re.compile(SHA256_PATTERN)


class ArtifactStore:
    """Files under ``root/ab/abcd…``; a name is given only to whole, hashed, synced bytes.

    Args:
        root: The folder; made when missing.
        limit_bytes: Largest artifact.
    """

    def __init__(self, root: Path, limit_bytes: int) -> None:
        self._root, self._limit = root, limit_bytes
        (root / "incoming").mkdir(parents=True, exist_ok=True)
        for stale in (root / "incoming").iterdir():
            stale.unlink()

    def path(self, sha256: str) -> Path:
        """Returns where an artifact lies or would lie.

        Raises:
            RequestError: Not a SHA-256.
        """
        if not _NAME.match(sha256):
            raise RequestError("that is no SHA-256", "write 64 hexadecimal digits, lower case")
        return self._root / sha256[:2] / sha256

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

    def _settle(self, scratch: Path, target: Path) -> None:
        target.parent.mkdir(exist_ok=True)
        scratch.replace(target)
        for folder in (target.parent, self._root):
            fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
            try:
                os.fsync(fd)
            finally:
                os.close(fd)
