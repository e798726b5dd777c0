"""Steps of a build, kept by content: a repeated or resumed build skips what is done.

An entry is a folder named by the hash of everything that its contents depend on. It appears whole
by one rename, and its files are hashed again when they are read, so a torn or altered entry is
made anew. The well-known caches (joblib, diskcache) store pickles, and reading one runs it.
"""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from kedge_builder.measure.machine import tools
from kedge_shared import wire
from kedge_shared.errors import InputError, StorageError
from kedge_shared.ids import sha256_hex
from kedge_shared.locks import locked

T = TypeVar("T")
_INDEX, _VALUE = "entry.json", "value.json"
_INDEX_LIMIT_BYTES = 1024 * 1024
#: A folder grown beyond this loses its longest unused entries at the end of a build.
LIMIT_BYTES = 8 * 1024**3
_DISK = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.ENOTDIR}


@dataclass(frozen=True, kw_only=True)
class Entry:
    """What an entry says of itself.

    Attributes:
        step: Name of the step.
        inputs: Everything that it depends on.
        files: Name → SHA-256.
    """

    step: str
    inputs: dict[str, str]
    files: dict[str, str]


def default_folder() -> Path:
    """Returns where entries are kept unless said otherwise."""
    home = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(home) / "kedge" / "builds"


class Cache:
    """Entries under one folder.

    Args:
        folder: Made when it is needed, for this user alone.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._tools = tools()

    def files(
        self, step: str, inputs: Mapping[str, object], make: Callable[[Path], None]
    ) -> tuple[Path, bool]:
        """Returns the folder of a step's files and whether they were there already.

        Args:
            step: Name, part of the key.
            inputs: Everything the files depend on besides the versions of the tools.
            make: Writes them into an empty folder.

        Raises:
            StorageError: The disk is full or cannot be written.
        """
        named = {key: str(value) for key, value in sorted(inputs.items())} | self._tools
        place = self.folder / sha256_hex(wire.encode([step, named]))
        if self._whole(place):
            os.utime(place)
            return place, True
        try:
            self._make(place, step, named, make)
        except OSError as error:
            # A write to a full disk names no file; a step that lacks its own input names one.
            if error.errno not in _DISK:
                raise
            raise StorageError(
                f"build cache {self.folder} cannot be written: {error.strerror}",
                "free the disk, or name another folder with --cache",
            ) from None
        return place, False

    def value(
        self, step: str, inputs: Mapping[str, object], kind: type[T], make: Callable[[], T]
    ) -> T:
        """Returns a step's value, a frozen dataclass or plain JSON of type ``kind``."""

        def write(folder: Path) -> None:
            (folder / _VALUE).write_bytes(wire.encode(make()))

        place, _ = self.files(step, inputs, write)
        return wire.decode((place / _VALUE).read_bytes(), kind, f"cached {step}")

    def trim(self, limit_bytes: int = LIMIT_BYTES) -> None:
        """Removes the longest unused entries beyond ``limit_bytes``."""
        if not self.folder.is_dir():
            return
        sized = [(each.stat().st_mtime, each, _size(each)) for each in self.folder.iterdir()]
        total = sum(size for _, _, size in sized)
        for _, place, size in sorted(sized):
            if total <= limit_bytes:
                return
            shutil.rmtree(place, ignore_errors=True)
            total -= size

    def _whole(self, place: Path) -> bool:
        try:
            index = wire.read_limited(place / _INDEX, "cache entry", _INDEX_LIMIT_BYTES)
            entry = wire.decode(index, Entry, "cache entry")
            return all(sha256_hex((place / n).read_bytes()) == h for n, h in entry.files.items())
        except (InputError, OSError):
            return False

    def _make(
        self, place: Path, step: str, inputs: dict[str, str], make: Callable[[Path], None]
    ) -> None:
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        scratch = Path(tempfile.mkdtemp(prefix=".making-", dir=self.folder))
        try:
            make(scratch)
            made = {
                str(each.relative_to(scratch)): sha256_hex(each.read_bytes())
                for each in sorted(scratch.rglob("*"))
                if each.is_file()
            }
            entry = Entry(step=step, inputs=inputs, files=made)
            (scratch / _INDEX).write_bytes(wire.encode_pretty(entry))
            self._put(scratch, place)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)

    def _put(self, made: Path, place: Path) -> None:
        """Puts an entry in its place, unless another process has put the same there.

        What is there may be read by others: only what is not whole is taken away, by one process at
        a time, and nobody can put another one there before it is gone.
        """
        try:
            made.rename(place)
        except OSError:
            with locked(self.folder, wait=True):
                if self._whole(place):
                    return
                torn = Path(tempfile.mkdtemp(prefix=".torn-", dir=self.folder))
                try:
                    with suppress(FileNotFoundError):
                        place.rename(torn / "entry")
                    made.rename(place)
                except OSError:
                    if not self._whole(place):
                        raise
                finally:
                    shutil.rmtree(torn, ignore_errors=True)


def _size(folder: Path) -> int:
    return sum(each.stat().st_size for each in folder.rglob("*") if each.is_file())
