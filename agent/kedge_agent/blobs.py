"""Immutable bytes named by their hash, and the only way to get at them: checked while copied.

An engine is native code to its runtime. So the bytes that were hashed are the bytes that are
loaded: a blob is copied into a sealed in-memory file while it is hashed, and runtimes get that
file. Whatever happens to the file on disk afterwards, there is no time between check and use.
"""

from __future__ import annotations

import fcntl
import hashlib
import mmap
import os
from pathlib import Path
from types import TracebackType

from kedge_shared.errors import InputError, StorageError, TrustError
from kedge_shared.ids import SHA256_PATTERN

_CHUNK_BYTES = 1024 * 1024
_SEALS = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE


class VerifiedBlob:
    """Bytes whose hash was checked and which nobody can change any more.

    Attributes:
        sha256: Their hash.
        length: Bytes.
        view: Read-only buffer.
    """

    def __init__(self, fd: int, sha256: str, length: int) -> None:
        self._fd = fd
        self.sha256 = sha256
        self.length = length
        self._map = mmap.mmap(fd, length, prot=mmap.PROT_READ) if length else None
        self.view = memoryview(self._map) if self._map else memoryview(b"")

    @property
    def path(self) -> str:
        """A path to the very same bytes, for runtimes that want one."""
        return f"/proc/self/fd/{self._fd}"

    def close(self) -> None:
        """Gives the memory back; where a runtime still maps it, when that lets go.

        Raises:
            BufferError: A runtime keeps a view; the descriptor is closed all the same.
        """
        if self._fd < 0:
            return
        fd, self._fd = self._fd, -1
        os.close(fd)  # first: the mapping needs no descriptor
        self.view.release()
        if self._map is not None:
            self._map.close()

    def __enter__(self) -> VerifiedBlob:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


class BlobStore:
    """A folder of immutable files named by their SHA-256.

    Args:
        root: The folder; made when missing.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    def path(self, sha256: str) -> Path:
        """Returns where a blob lies or would lie."""
        if len(sha256) != SHA256_LENGTH or set(sha256) - set("0123456789abcdef"):
            raise InputError(f"{sha256[:80]!r} is no SHA-256 ({SHA256_PATTERN})")
        return self.root / sha256

    def has(self, sha256: str) -> bool:
        """Says whether a blob was stored; it is checked again whenever it is opened."""
        return self.path(sha256).is_file()

    def open_verified(self, sha256: str, length: int | None = None) -> VerifiedBlob:
        """Copies a blob into sealed memory and checks it on the way.

        Args:
            sha256: Its name.
            length: Bytes it must have, where the manifest says.

        Raises:
            StorageError: It is not there or cannot be read.
            TrustError: Its bytes are not what its name says (``hash``).
        """
        source = self.path(sha256)
        fd = os.memfd_create(sha256[:16], os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            copied, digest = _copy(source, fd, length)
            if digest != sha256 or (length is not None and copied != length):
                raise TrustError("hash", f"stored file {sha256[:12]} was altered on this board")
            fcntl.fcntl(fd, fcntl.F_ADD_SEALS, _SEALS)
            return VerifiedBlob(fd, sha256, copied)
        except BaseException:
            os.close(fd)
            raise

    def read_verified(self, sha256: str, limit_bytes: int) -> bytes:
        """Returns the bytes of a small blob, checked.

        Raises:
            StorageError: It is not there or cannot be read.
            TrustError: Altered (``hash``) or larger than ``limit_bytes`` (``length``).
        """
        try:
            if self.path(sha256).stat().st_size > limit_bytes:
                raise TrustError("length", f"stored file {sha256[:12]} is too large")
        except OSError as error:
            raise _unreadable(sha256, error) from None
        with self.open_verified(sha256) as blob:
            return bytes(blob.view)


SHA256_LENGTH = 64


def _copy(source: Path, fd: int, length: int | None) -> tuple[int, str]:
    """Copies a file into ``fd`` and returns its length and hash; stops one byte past ``length``."""
    digest = hashlib.sha256()
    copied = 0
    try:
        with source.open("rb") as file:
            while chunk := file.read(_CHUNK_BYTES):
                digest.update(chunk)
                copied += len(chunk)
                if length is not None and copied > length:
                    break
                _write_all(fd, chunk)
    except OSError as error:
        raise _unreadable(source.name, error) from None
    return copied, digest.hexdigest()


def _write_all(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def _unreadable(sha256: str, error: OSError) -> StorageError:
    return StorageError(f"stored file {sha256[:12]} cannot be read: {error.strerror}")
