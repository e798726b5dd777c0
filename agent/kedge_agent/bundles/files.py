"""The files of a bundle: a folder or a plain tar. Nothing is unpacked, nothing outside is read.

Names are looked up among those that a bundle may hold, so there is no path to escape by; there is
no compression, so there is no bomb; links, devices, sparse files and extension records are refused
before anything of them is read.
"""

from __future__ import annotations

import os
import stat
import tarfile
from pathlib import Path
from typing import BinaryIO, Protocol, cast

from kedge_shared import wire
from kedge_shared.bundle import FILES_LIMIT, TABLE, TABLE_LIMIT_BYTES, Bundle, is_member
from kedge_shared.errors import InputError

_FOLDERS = {"metadata", "artifacts", "assignments"}


class BundleFiles(Protocol):
    """Where a bundle's files are found."""

    def open(self, name: str) -> tuple[BinaryIO, int] | None:
        """Returns a file at its beginning and its length, or ``None`` if it is not there."""
        ...

    def close(self) -> None:
        """Lets go of the stick."""
        ...


def open_bundle(path: Path) -> BundleFiles:
    """Opens a bundle.

    Raises:
        InputError: It is none, cannot be read, or holds what no bundle holds.
    """
    try:
        if path.is_dir():
            return _Folder(path)
        return _Tar(path)
    except tarfile.TarError as error:
        raise InputError(
            f"{path} is no bundle: {error}", "make one with `kedge release bundle`; no compression"
        ) from None
    except OSError as error:
        raise InputError(
            f"bundle {path} cannot be read: {error.strerror}", "the agent's user must be allowed to"
        ) from None


def read_table(files: BundleFiles) -> Bundle:
    """Reads the table of contents.

    Raises:
        InputError: It is missing, too long or malformed.
    """
    return wire.decode(read_small(files, TABLE, TABLE_LIMIT_BYTES), Bundle, "table of the bundle")


def read_small(files: BundleFiles, name: str, limit_bytes: int) -> bytes:
    """Reads a small file whole.

    Raises:
        InputError: It is missing, cannot be read or longer than ``limit_bytes``.
    """
    found = files.open(name)
    if found is None:
        raise InputError(f"bundle has no {name}", "make it again with `kedge release bundle`")
    file, length = found
    with file:
        if length > limit_bytes:
            raise InputError(f"{name} of the bundle is larger than {limit_bytes} bytes")
        try:
            return file.read(length)
        except OSError as error:
            raise InputError(f"{name} cannot be read from the bundle: {error.strerror}") from None


class _Folder:
    def __init__(self, root: Path) -> None:
        self._root = root
        for name in _FOLDERS:
            if (root / name).is_symlink():
                raise InputError(f"{name} of the bundle is a link")

    def open(self, name: str) -> tuple[BinaryIO, int] | None:
        if not is_member(name):
            return None
        try:
            # Not blocking: a pipe on the stick must not hold the updater.
            fd = os.open(self._root / name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        except OSError:
            return None
        found = os.fstat(fd)
        if not stat.S_ISREG(found.st_mode):
            os.close(fd)
            return None
        return os.fdopen(fd, "rb"), found.st_size

    def close(self) -> None:
        """A folder needs no letting go."""


class _PlainInfo(tarfile.TarInfo):
    """A header of a regular file or a folder; any other kind is refused unread.

    Extension records would be read into memory whole, whatever length they claim.
    """

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> _PlainInfo:
        info = super().frombuf(buf, encoding, errors)
        if info.type not in {tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.DIRTYPE}:
            raise tarfile.ReadError(f"{info.name[:80]!r} is neither a file nor a folder")
        return info


class _Tar:
    def __init__(self, path: Path) -> None:
        self._path, self._at = path, dict[str, tuple[int, int]]()
        with tarfile.open(path, "r:", tarinfo=_PlainInfo, ignore_zeros=False) as archive:
            for count, info in enumerate(archive):
                if count >= FILES_LIMIT:
                    raise InputError(f"{path} holds more than {FILES_LIMIT} files")
                if info.isdir():
                    continue
                self._add(info)

    def _add(self, info: tarfile.TarInfo) -> None:
        name = info.name.removeprefix("./")
        if not is_member(name):
            raise InputError(f"{self._path} holds {info.name[:80]!r}, which no bundle does")
        if name in self._at:
            raise InputError(f"{self._path} holds {name} twice")
        self._at[name] = (info.offset_data, info.size)

    def open(self, name: str) -> tuple[BinaryIO, int] | None:
        place = self._at.get(name)
        if place is None:
            return None
        offset, length = place
        return cast(BinaryIO, _Part(self._path, offset, length)), length

    def close(self) -> None:
        """Each file is opened for itself."""


class _Part:
    """Some bytes of a file, read like a file of their own."""

    def __init__(self, path: Path, offset: int, length: int) -> None:
        self._file = path.open("rb")
        self._begin, self._left = offset, length
        self._length = length
        self._file.seek(offset)

    def seek(self, at: int) -> int:
        self._file.seek(self._begin + at)
        self._left = self._length - at
        return at

    def read(self, most: int = -1) -> bytes:
        wanted = self._left if most < 0 else min(most, self._left)
        data = self._file.read(wanted)
        self._left -= len(data)
        return data

    def close(self) -> None:
        self._file.close()

    def __enter__(self) -> _Part:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
