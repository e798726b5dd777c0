"""Immutable bytes named by their hash, and the only way to get at them: checked while copied.

An engine is native code to its runtime. So the bytes that were hashed are the bytes that are
loaded: a blob is copied into a sealed in-memory file while it is hashed, and runtimes get that
file. Whatever happens to the file on disk afterwards, there is no time between check and use.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import mmap
import os
import resource
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

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
        self._map = _map(fd, length) if length else None
        self.view = memoryview(self._map) if self._map else memoryview(b"")

    @property
    def fd(self) -> int:
        """The descriptor, for a process that is to inherit the very same bytes."""
        return self._fd

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


def _map(fd: int, length: int) -> mmap.mmap:
    """Maps sealed memory to read.

    Privately: Linux before 6.7, and so every Jetson, takes a shared mapping for one that may be
    written later, and refuses it where a seal forbids writing.
    """
    return mmap.mmap(fd, length, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ)


class BlobStore:
    """A folder of immutable files named by their SHA-256.

    Args:
        root: The folder; made when missing.
        sealer: Public key whose seals on what was made on this board are believed.
    """

    def __init__(self, root: Path, sealer: Mapping[str, Any] | None = None) -> None:
        self.root, self.sealer = root, sealer

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
        self.path(sha256)  # is it a hash at all?
        fd = os.memfd_create(sha256[:16], os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            with self._read(sha256) as source:
                copied, digest = _copy(source, fd, length)
            if digest != sha256 or (length is not None and copied != length):
                raise TrustError("hash", f"stored file {sha256[:12]} was altered on this board")
            fcntl.fcntl(fd, fcntl.F_ADD_SEALS, _SEALS)
            return VerifiedBlob(fd, sha256, copied)
        except OSError as error:
            os.close(fd)
            raise _unreadable(sha256, error) from None
        except BaseException:
            os.close(fd)
            raise

    def read_verified(self, sha256: str, limit_bytes: int) -> bytes:
        """Returns the bytes of a small blob, checked.

        Raises:
            StorageError: It is not there or cannot be read.
            TrustError: Altered (``hash``) or larger than ``limit_bytes`` (``length``).
        """
        self.path(sha256)
        try:
            with self._read(sha256) as source:
                if os.fstat(source.fileno()).st_size > limit_bytes:
                    raise TrustError("length", f"stored file {sha256[:12]} is too large")
        except OSError as error:
            raise _unreadable(sha256, error) from None
        with self.open_verified(sha256) as blob:
            return bytes(blob.view)

    def _read(self, sha256: str) -> BinaryIO:
        return self.path(sha256).open("rb")


class HeldStore(BlobStore):
    """A blob store whose files were opened while that was allowed.

    For a child that changes its user: the store is its owner's alone. Files that come later are
    not in it.

    Args:
        root: The folder.
        sealer: As for :class:`BlobStore`.
    """

    def __init__(self, root: Path, sealer: Mapping[str, Any] | None = None) -> None:
        super().__init__(root, sealer)
        raise_descriptor_limit()
        self._held = {
            each.name: os.open(each, os.O_RDONLY | os.O_CLOEXEC)
            for each in root.iterdir()
            if each.is_file()
        }

    def has(self, sha256: str) -> bool:
        """Says whether a blob was there."""
        return sha256 in self._held

    def _read(self, sha256: str) -> BinaryIO:
        if sha256 not in self._held:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
        held = os.dup(self._held[sha256])
        os.lseek(held, 0, os.SEEK_SET)
        return os.fdopen(held, "rb")


def raise_descriptor_limit() -> None:
    """Allows as many open files as this process may have: golden frames are one each."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


SHA256_LENGTH = 64


def seal(path: Path) -> VerifiedBlob:
    """Copies a file that the caller vouches for into sealed memory.

    Raises:
        StorageError: It cannot be read.
    """
    fd = os.memfd_create(path.name[:200], os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        with path.open("rb") as source:
            copied, digest = _copy(source, fd, None)
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, _SEALS)
        return VerifiedBlob(fd, digest, copied)
    except OSError as error:
        os.close(fd)
        raise StorageError(f"{path} cannot be read: {error.strerror}") from None


def _copy(source: BinaryIO, fd: int, length: int | None) -> tuple[int, str]:
    """Copies a file into ``fd`` and returns its length and hash; stops one byte past ``length``."""
    digest = hashlib.sha256()
    copied = 0
    while chunk := source.read(_CHUNK_BYTES):
        digest.update(chunk)
        copied += len(chunk)
        if length is not None and copied > length:
            break
        _write_all(fd, chunk)
    return copied, digest.hexdigest()


def _write_all(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def _unreadable(sha256: str, error: OSError) -> StorageError:
    return StorageError(f"stored file {sha256[:12]} cannot be read: {error.strerror}")
