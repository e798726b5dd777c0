"""The data folder from outside the server: its database, its artifacts by hash."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from sqlalchemy import Engine

from kedge_server.database import connect
from kedge_shared.errors import InputError
from kedge_shared.ids import SHA256_PATTERN

DATABASE = "kedge.db"
ARTIFACTS = "artifacts"
#: Of the folder of artifacts: where uploads grow, and where collection takes things to.
_COLLECTED = "collected"
_OWN = ("incoming", _COLLECTED)
_CHUNK = 1024 * 1024
_NAME = re.compile(SHA256_PATTERN)


class DataFolder:
    """A server's data folder.

    Args:
        path: Where.

    Raises:
        InputError: It holds no database of the embedded kind.
    """

    def __init__(self, path: Path) -> None:
        self.path, self.database = path, path / DATABASE
        self.artifacts = path / ARTIFACTS
        self.collected = self.artifacts / _COLLECTED
        if not self.database.is_file():
            raise InputError(
                f"{path} holds no {DATABASE}",
                "name the server's --data; PostgreSQL is backed up by pg_dump (docs/server.md)",
            )

    @contextmanager
    def engine(self) -> Iterator[Engine]:
        """Opens the database, beside the server that may run on it."""
        engine = connect(self.database)
        try:
            yield engine
        finally:
            engine.dispose()

    def artifact(self, sha256: str) -> Path:
        """Returns where an artifact lies or would lie."""
        return self.artifacts / sha256[:2] / sha256

    def read(self, sha256: str, limit_bytes: int) -> bytes | None:
        """Returns a small artifact whole, or ``None`` if it is missing or larger."""
        try:
            path = self.artifact(sha256)
            return path.read_bytes() if path.stat().st_size <= limit_bytes else None
        except FileNotFoundError:
            return None

    def stored(self) -> dict[str, Path]:
        """Returns hash → file of everything that has a name by its hash."""
        files = self.artifacts.glob("??/*")
        return {each.name: each for each in files if _NAME.match(each.name)}

    def put_back(self) -> None:
        """Undoes a collection that was broken off."""
        for each in self.collected.glob("*"):
            each.rename(self.artifact(each.name))

    def strangers(self) -> list[Path]:
        """Returns files among the artifacts that nothing of ours would have put there."""
        known = set(self.stored().values())
        return sorted(
            each
            for each in self.artifacts.rglob("*")
            if each.is_file() and each not in known and each.parent.name not in _OWN
        )


def digest_of(file: BinaryIO) -> tuple[str, int]:
    """Returns the SHA-256 and the length of what is left of a file."""
    digest, length = hashlib.sha256(), 0
    while chunk := file.read(_CHUNK):
        digest.update(chunk)
        length += len(chunk)
    return digest.hexdigest(), length
