"""Backup: database, artifacts by hash, online keys; consistent while the server runs."""

from __future__ import annotations

import os
import sqlite3
import tempfile
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from alembic.migration import MigrationContext
from sqlalchemy import create_engine
from sqlalchemy.pool import NullPool
from sqlmodel import Session

from kedge_server.app import TOKEN_FILE
from kedge_server.operation import archive, inventory, references
from kedge_server.operation.archive import CONTENTS, Sink
from kedge_server.operation.folder import DATABASE, DataFolder, digest_of
from kedge_shared import __version__, wire
from kedge_shared.errors import InputError, StorageError

SCHEMA = 1
#: Of the trust folder; what stands in ``offline`` was never the server's.
_TRUST = ("online/*.key", "repository/*.json")


@dataclass(frozen=True, kw_only=True)
class Contents:
    """Table of contents of a backup, written last.

    Attributes:
        schema: Of this table.
        made: Unix seconds; everything acknowledged before it is in.
        kedge: Version that made it.
        revision: Of the database.
        database_sha256: Of the copy.
        artifacts: Hash → bytes.
        files: Names of the others: operator's token, keys, first metadata.
        missing: Needed artifacts that the server itself did not have whole, with what needs them.
    """

    schema: int
    made: float
    kedge: str
    revision: str
    database_sha256: str
    artifacts: dict[str, int]
    files: tuple[str, ...]
    missing: dict[str, str]


def backup(data: Path, trust: Path, target: Path, now: float) -> Contents:
    """Writes a backup; into a folder that holds one it adds only what is new.

    The database is copied first, by SQLite's online backup, in one read transaction. Whatever it
    names was stored before it named it, so that copying artifacts afterwards misses none; and
    collection leaves alone what was used lately.

    Args:
        data: The server's data folder; the server may be running.
        trust: Its trust folder.
        target: A folder, or a file that ends with ``.tar``.
        now: Unix seconds.

    Raises:
        InputError: One of the folders is not what it should be.
        StorageError: The target cannot be written.
    """
    folder = DataFolder(data)
    keys = [each for pattern in _TRUST for each in sorted(trust.glob(pattern))]
    if not any(each.suffix == ".key" for each in keys):
        raise InputError(f"{trust}/online holds no key", "name the server's --trust")
    _check_apart(data, target)
    try:
        with archive.writing(target) as sink, tempfile.TemporaryDirectory(
            prefix=".kedge-backup-", dir=target.parent if target.suffix == archive.TAR else target
        ) as scratch:  # fmt: skip
            return _write(folder, trust, keys, sink, Path(scratch) / DATABASE, now)
    except OSError as error:
        raise StorageError(
            f"backup {target} cannot be written: {error.strerror}", "free space or name another"
        ) from None


def _write(
    folder: DataFolder, trust: Path, keys: list[Path], sink: Sink, copy: Path, now: float
) -> Contents:
    copy_database(folder.database, copy)
    revision, needs, kept = _needed(copy, folder, now)
    with copy.open("rb") as file:
        digest, length = digest_of(file)
        file.seek(0)
        # By its hash, beside the one of the backup before: that counts until this one is whole.
        sink.add(f"database/{digest}", file, length)
    artifacts, missing = _artifacts(folder, needs, kept, sink)
    files = [(f"trust/{each.relative_to(trust)}", each.read_bytes()) for each in keys]
    token = folder.path / TOKEN_FILE
    if token.is_file():
        files.append((TOKEN_FILE, token.read_bytes()))
    for name, body in files:
        archive.add_bytes(sink, name, body)
    contents = Contents(
        schema=SCHEMA, made=now, kedge=__version__, revision=revision, database_sha256=digest,
        artifacts=artifacts, files=tuple(name for name, _ in files), missing=missing,
    )  # fmt: skip
    archive.add_bytes(sink, CONTENTS, wire.encode_pretty(contents))
    sink.keep_only("database", digest)
    return contents


def copy_database(path: Path, copy: Path) -> None:
    """Copies a database that may be in use into one file that needs no log beside it.

    Raises:
        InputError: It is damaged.
    """
    os.close(os.open(copy, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
    try:
        with closing(sqlite3.connect(path)) as source, closing(sqlite3.connect(copy)) as target:
            source.backup(target)
            target.execute("PRAGMA journal_mode=DELETE")
            (said,) = target.execute("PRAGMA quick_check(1)").fetchone()
    except sqlite3.DatabaseError as error:
        said = str(error)
    if said != "ok":
        raise InputError(f"database {path} is damaged: {said}", "`kedge server check`")


def _needed(
    copy: Path, folder: DataFolder, now: float
) -> tuple[str, dict[str, references.Need], set[str]]:
    # Not database.connect: that would make it a database with a log beside it again.
    engine = create_engine(f"sqlite:///{copy}", poolclass=NullPool)
    with Session(engine) as session:
        revision = MigrationContext.configure(session.connection()).get_current_revision()
        known = inventory.known(session, now)
    return (
        revision or "",
        references.required(known, folder.read),
        references.kept(known, folder.read),
    )


def _artifacts(
    folder: DataFolder, needs: dict[str, references.Need], kept: set[str], sink: Sink
) -> tuple[dict[str, int], dict[str, str]]:
    """Copies every needed artifact whose bytes are those of its name."""
    copied: dict[str, int] = {}
    missing: dict[str, str] = {}
    for digest in sorted(kept):
        path, name = folder.artifact(digest), f"artifacts/{digest[:2]}/{digest}"
        if path.is_file():
            length = path.stat().st_size
            if sink.has(name, length) or _copy(path, digest, name, sink):
                copied[digest] = length
                continue
        if digest in needs:
            missing[digest] = needs[digest].why
    return copied, missing


def _copy(path: Path, digest: str, name: str, sink: Sink) -> bool:
    with path.open("rb") as file:
        found, length = digest_of(file)
        if found != digest:
            return False
        file.seek(0)
        sink.add(name, file, length)
    return True


def _check_apart(data: Path, target: Path) -> None:
    if target.resolve().is_relative_to(data.resolve()):
        raise InputError(f"{target} lies within {data}", "write the backup elsewhere")
