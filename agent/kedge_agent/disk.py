"""Files that are there whole or not at all, also after a power cut.

Measured on ext4 with real cuts: without fsync of the file a rename leaves the right length and
all zeros; without fsync of the folder the old name comes back. So always: write aside, fsync,
rename, fsync the folder.
"""

from __future__ import annotations

import errno
import os
from contextlib import suppress
from pathlib import Path
from typing import Protocol

from kedge_shared.errors import StorageError

_FULL = {errno.ENOSPC, errno.EDQUOT}


class Disk(Protocol):
    """What a write that survives power cuts is made of; all raise ``OSError``."""

    def write(self, path: Path, data: bytes, mode: int) -> None:
        """Writes a file; nothing of it is on the medium for certain yet."""
        ...

    def sync(self, path: Path) -> None:
        """Brings a file's bytes to the medium."""
        ...

    def rename(self, source: Path, target: Path) -> None:
        """Gives a file another name, whatever had it before."""
        ...

    def sync_folder(self, folder: Path) -> None:
        """Brings a folder's names to the medium."""
        ...


class RealDisk:
    """The disk of this board."""

    def write(self, path: Path, data: bytes, mode: int) -> None:
        """Writes a file."""
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
        with os.fdopen(fd, "wb") as file:
            file.write(data)

    def sync(self, path: Path) -> None:
        """Brings a file's bytes to the medium, whichever process wrote them."""
        _sync(path, os.O_RDONLY)

    def rename(self, source: Path, target: Path) -> None:
        """Gives a file another name."""
        source.replace(target)

    def sync_folder(self, folder: Path) -> None:
        """Brings a folder's names to the medium."""
        _sync(folder, os.O_RDONLY | os.O_DIRECTORY)


REAL_DISK = RealDisk()


def write_whole(path: Path, data: bytes, mode: int = 0o600, disk: Disk = REAL_DISK) -> None:
    """Replaces a file by ``data``.

    Raises:
        StorageError: The disk is full or cannot be written; the old file is still there.
    """
    scratch = path.with_name(f".{path.name}.new")
    try:
        disk.write(scratch, data, mode)
        settle(scratch, path, disk)
    except OSError as error:
        with suppress(OSError):
            scratch.unlink(missing_ok=True)
        raise disk_error(path, error) from None


def settle(finished: Path, path: Path, disk: Disk = REAL_DISK) -> None:
    """Gives a written file its name for good.

    Its bytes are synced here, whoever wrote them: what an earlier process left behind whole may
    still be in memory only, and a name that lands before its bytes names zeros.
    """
    disk.sync(finished)
    disk.rename(finished, path)
    disk.sync_folder(path.parent)


def free_bytes(folder: Path) -> int:
    """Returns what may still be written to a folder's file system.

    Raises:
        StorageError: It cannot be asked.
    """
    try:
        found = os.statvfs(folder)
    except OSError as error:
        raise disk_error(folder, error) from None
    return found.f_bavail * found.f_frsize


def _sync(path: Path, flags: int) -> None:
    fd = os.open(path, flags)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def disk_error(path: Path, error: OSError) -> StorageError:
    """Returns the error that a person reads."""
    if error.errno in _FULL:
        return StorageError(f"disk is full, {path.name} was not written", "free some space")
    return StorageError(f"{path} cannot be written: {error.strerror}")
