"""A disk that loses power: bytes are torn until synced, names land early or late.

What is modelled was seen on ext4 with real cuts (docs and comments of ``kedge_agent/disk.py``):
a renamed file whose bytes were not synced comes back with the right length and zeros, empty or
half; names not synced come back as they were, or not, in the order in which they were given.
"""

from __future__ import annotations

import random
from pathlib import Path


class PowerCut(Exception):
    """The process ends here."""


class TornDisk:
    """Works like a disk until the power goes at operation ``cut_at`` (from 0).

    Attributes:
        operations: How many were begun.

    Args:
        before: Files that were there and synced, path → bytes.
        cut_at: Operation before which the power goes; ``None`` is never.
    """

    def __init__(self, before: dict[Path, bytes], cut_at: int | None = None) -> None:
        self._bytes: list[bytes] = []
        self._synced: list[bytes | None] = []
        self._names: dict[Path, int] = {}
        self._landed: dict[Path, int] = {}
        self._pending: list[tuple[Path | None, Path, int]] = []
        self.operations, self._cut_at = 0, cut_at
        for path, data in before.items():
            self._names[path] = self._landed[path] = self._new(data, data)

    def write(self, path: Path, data: bytes, mode: int) -> None:
        self._begin()
        if path in self._names:  # truncated and written anew, in place
            self._bytes[self._names[path]] = data
            return
        self._names[path] = self._new(data, None)
        self._pending.append((None, path, self._names[path]))

    def sync(self, path: Path) -> None:
        self._begin()
        inode = self._names[path]
        self._synced[inode] = self._bytes[inode]

    def rename(self, source: Path, target: Path) -> None:
        self._begin()
        inode = self._names[target] = self._names.pop(source)
        self._pending.append((source, target, inode))

    def sync_folder(self, folder: Path) -> None:
        self._begin()
        for each in [one for one in self._pending if one[1].parent == folder]:
            self._land(each)
            self._pending.remove(each)

    def after_the_cut(self, rng: random.Random) -> dict[Path, bytes]:
        """Returns what may be found when the power is back."""
        for each in self._pending[: rng.randint(0, len(self._pending))]:
            self._land(each)
        return {path: self._torn(inode, rng) for path, inode in self._landed.items()}

    def _new(self, data: bytes, synced: bytes | None) -> int:
        self._bytes.append(data)
        self._synced.append(synced)
        return len(self._bytes) - 1

    def _begin(self) -> None:
        if self.operations == self._cut_at:
            raise PowerCut
        self.operations += 1

    def _land(self, step: tuple[Path | None, Path, int]) -> None:
        source, target, inode = step
        if source is not None:
            self._landed.pop(source, None)
        self._landed[target] = inode

    def _torn(self, inode: int, rng: random.Random) -> bytes:
        data, synced = self._bytes[inode], self._synced[inode]
        if data == synced:
            return data
        half = data[: len(data) // 2]
        return rng.choice([data, bytes(len(data)), half, b"", half + bytes(len(data) - len(half))])
