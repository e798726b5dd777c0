"""Where a backup lies: a folder, or one tar file; the same names in either."""

from __future__ import annotations

import io
import os
import re
import shutil
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Protocol

from kedge_shared.errors import InputError

CONTENTS = "backup.json"
TAR = ".tar"
#: Everything a backup may hold; whatever else an archive brings is not looked at.
_NAMES = re.compile(
    r"backup\.json|database/[0-9a-f]{64}|operator\.token|artifacts/[0-9a-f]{2}/[0-9a-f]{64}"
    r"|trust/online/[a-z0-9-]+\.key|trust/repository/[a-z0-9.]+\.json"
)
#: What lies at the top of one; an earlier one that was broken off may hold only a part.
_TOP = {"backup.json", "database", "operator.token", "artifacts", "trust"}


class Sink(Protocol):
    """Takes a backup's files; nothing of it counts before its table of contents is there."""

    def has(self, name: str, length: int) -> bool:
        """Says whether a file that never changes is there from an earlier backup."""

    def add(self, name: str, file: BinaryIO, length: int) -> None:
        """Takes a file."""

    def keep_only(self, folder: str, name: str) -> None:
        """Drops what earlier backups left in a folder."""


class Source(Protocol):
    """Gives a backup's files."""

    def open(self, name: str) -> BinaryIO:
        """Opens a file.

        Raises:
            InputError: It is not there.
        """


class _FolderSink:
    def __init__(self, root: Path) -> None:
        self._root = root

    def has(self, name: str, length: int) -> bool:
        path = self._root / name
        return path.is_file() and path.stat().st_size == length

    def add(self, name: str, file: BinaryIO, length: int) -> None:
        path = self._root / name
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        scratch = path.with_name(f".{path.name}.new")
        scratch.unlink(missing_ok=True)
        fd = os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(fd, "wb") as out:
            shutil.copyfileobj(file, out, 1024 * 1024)
            out.flush()
            os.fsync(out.fileno())
        scratch.replace(path)
        sync_folder(path.parent)

    def keep_only(self, folder: str, name: str) -> None:
        for each in (self._root / folder).iterdir():
            if each.name != name:
                each.unlink()


class _TarSink:
    def __init__(self, tar: tarfile.TarFile) -> None:
        self._tar = tar

    def has(self, name: str, length: int) -> bool:
        return False

    def add(self, name: str, file: BinaryIO, length: int) -> None:
        member = tarfile.TarInfo(name)
        member.size, member.mode = length, 0o600
        self._tar.addfile(member, file)

    def keep_only(self, folder: str, name: str) -> None:
        """There was nothing before."""


class _FolderSource:
    def __init__(self, root: Path) -> None:
        self._root = root

    def open(self, name: str) -> BinaryIO:
        try:
            return (self._root / name).open("rb")
        except OSError:
            raise _absent(self._root, name) from None


class _TarSource:
    def __init__(self, path: Path, tar: tarfile.TarFile) -> None:
        self._path, self._tar = path, tar
        self._members = {
            each.name: each for each in tar if each.isreg() and _NAMES.fullmatch(each.name)
        }

    def open(self, name: str) -> BinaryIO:
        member = self._members.get(name)
        file = self._tar.extractfile(member) if member else None
        if file is None:
            raise _absent(self._path, name)
        return file  # type: ignore[return-value]  # a buffered reader in all but its class


@contextmanager
def writing(target: Path) -> Iterator[Sink]:
    """Opens a backup to write; a tar file gets its name only when it is whole.

    Raises:
        InputError: Something else lies there.
    """
    if target.suffix != TAR:
        others = {each.name for each in target.iterdir()} - _TOP if target.is_dir() else set()
        if any(not each.startswith(".") for each in others):
            raise InputError(f"{target} holds {min(others)}", "name an empty folder")
        target.mkdir(mode=0o700, parents=True, exist_ok=True)
        yield _FolderSink(target)
        return
    scratch = target.with_name(f".{target.name}.new")
    try:
        scratch.unlink(missing_ok=True)
        fd = os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(fd, "wb") as file:
            with tarfile.open(fileobj=file, mode="w") as tar:
                yield _TarSink(tar)
            file.flush()
            os.fsync(file.fileno())
        scratch.replace(target)
        sync_folder(target.parent)
    finally:
        scratch.unlink(missing_ok=True)


@contextmanager
def reading(source: Path) -> Iterator[Source]:
    """Opens a backup to read.

    Raises:
        InputError: It is none.
    """
    if source.is_dir():
        yield _FolderSource(source)
        return
    try:
        with source.open("rb") as file, tarfile.open(fileobj=file, mode="r:") as tar:
            yield _TarSource(source, tar)
    except OSError as error:
        raise InputError(f"{source} cannot be read: {error.strerror or error}") from None
    except tarfile.TarError as error:
        raise InputError(f"{source} is no backup: {error}") from None


def add_bytes(sink: Sink, name: str, data: bytes) -> None:
    """Adds a small file."""
    sink.add(name, io.BytesIO(data), len(data))


def sync_folder(folder: Path) -> None:
    """Makes names in a folder survive a power cut."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _absent(where: Path, name: str) -> InputError:
    what = "is no backup, or one that did not come to its end" if name == CONTENTS else "is damaged"
    return InputError(f"{where} {what}: {name} is missing", "take another backup")
