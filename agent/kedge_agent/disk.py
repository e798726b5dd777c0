"""Files that are there whole or not at all, also after a power cut.

Measured on ext4 with real cuts: without fsync of the file a rename leaves the right length and
all zeros; without fsync of the folder the old name comes back. So always: write aside, fsync,
rename, fsync the folder.
"""

from __future__ import annotations

import errno
import os
from pathlib import Path

from kedge_shared.errors import StorageError

_FULL = {errno.ENOSPC, errno.EDQUOT}


def write_whole(path: Path, data: bytes, mode: int = 0o600) -> None:
    """Replaces a file by ``data``.

    Raises:
        StorageError: The disk is full or cannot be written; the old file is still there.
    """
    scratch = path.with_name(f".{path.name}.new")
    try:
        fd = os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
        with os.fdopen(fd, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        settle(scratch, path)
    except OSError as error:
        scratch.unlink(missing_ok=True)
        raise disk_error(path, error) from None


def settle(finished: Path, path: Path) -> None:
    """Gives a synced file its name for good."""
    finished.replace(path)
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Makes names in a folder survive a power cut."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def disk_error(path: Path, error: OSError) -> StorageError:
    """Returns the error that a person reads."""
    if error.errno in _FULL:
        return StorageError(f"disk is full, {path.name} was not written", "free some space")
    return StorageError(f"{path} cannot be written: {error.strerror}")
