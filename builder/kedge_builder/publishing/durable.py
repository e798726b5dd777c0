"""Files that are whole or not there, also after a power cut."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def write_synced(path: Path, data: bytes) -> None:
    """Replaces a file: written aside, synced, renamed, and the folder synced.

    Raises:
        OSError: The disk is full or cannot be written; the older file stands.
    """
    scratch = path.with_name(f".{path.name}.new")
    try:
        with scratch.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        scratch.replace(path)
    finally:
        scratch.unlink(missing_ok=True)
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Makes renames within a folder survive a power cut."""
    fd = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


@contextmanager
def lasting_copy(folder: Path) -> Iterator[Path]:
    """Yields a copy of trusted metadata to work on; what was accepted there is made to last.

    python-tuf writes without fsync: after a power cut the right length of zeros lies there, which
    it takes for nothing, and with it the protection against going back is gone. Also what it
    accepted before it refused the rest is kept, as it would keep it itself.

    Raises:
        OSError: The disk is full or cannot be written.
    """
    scratch = Path(tempfile.mkdtemp(prefix=".work-", dir=folder))
    try:
        for each in _metadata(folder):
            place = scratch / each.relative_to(folder)
            place.parent.mkdir(exist_ok=True)
            shutil.copyfile(each, place)
        try:
            yield scratch
        finally:
            _settle(scratch, folder)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _metadata(folder: Path) -> list[Path]:
    """Returns every metadata file, roots first, links apart: python-tuf makes its own."""
    roots = sorted((folder / "root_history").glob("*.root.json"))
    return [*roots, *(each for each in sorted(folder.glob("*.json")) if not each.is_symlink())]


def _settle(scratch: Path, folder: Path) -> None:
    (folder / "root_history").mkdir(exist_ok=True)
    sync_folder(folder)
    for each in [*_metadata(scratch), scratch / "root.json"]:
        place = folder / each.relative_to(scratch)
        if each.exists() and not (place.is_file() and place.read_bytes() == each.read_bytes()):
            write_synced(place, each.read_bytes())
