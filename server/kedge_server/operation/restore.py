"""Restore: a backup becomes a data folder and a trust folder, whole or not at all."""

from __future__ import annotations

import os
import shutil
from pathlib import Path, PurePosixPath

from sqlalchemy import update
from sqlmodel import Session

from kedge_server.app import TOKEN_FILE
from kedge_server.audit.service import record
from kedge_server.database import connect, upgrade
from kedge_server.operation import archive
from kedge_server.operation.archive import CONTENTS, Source
from kedge_server.operation.backup import SCHEMA, Contents
from kedge_server.operation.folder import ARTIFACTS, DATABASE, digest_of
from kedge_server.replicas.tables import LeaseRow
from kedge_shared import wire
from kedge_shared.errors import InputError, StorageError

_CONTENTS_LIMIT_BYTES = 256 * 1024 * 1024
_SCRATCH = ".restoring"
#: Files of a backup that lie in the data folder; all others are of the trust folder.
_IN_DATA = frozenset({TOKEN_FILE})


def restore(source: Path, data: Path, trust: Path | None) -> Contents:
    """Brings a backup back.

    Everything is written aside, checked against its hash and only then given its name, the database
    last. Counters need nothing: the server signs above Unix time and above what boards tell it they
    have seen.

    Args:
        source: What :func:`backup` wrote.
        data: Data folder to make; empty or missing.
        trust: Trust folder to make, the same; ``None`` where the keys are still in place.

    Raises:
        InputError: The source is no whole backup, or a target is not empty.
        StorageError: A target cannot be written.
    """
    targets = [each for each in (data, trust) if each is not None]
    for each in targets:
        if each.exists() and any(path.name != _SCRATCH for path in each.iterdir()):
            raise InputError(f"{each} is not empty", "restore into an empty folder")
    try:
        with archive.reading(source) as opened:
            contents = _contents(opened, source)
            for each in targets:
                shutil.rmtree(each / _SCRATCH, ignore_errors=True)
                (each / _SCRATCH).mkdir(mode=0o700, parents=True)
            _fetch(opened, contents, source, data / _SCRATCH, trust and trust / _SCRATCH)
        _finish_database(data / _SCRATCH / DATABASE, contents)
        for each in reversed(targets):
            _settle(each)
    except OSError as error:
        raise StorageError(
            f"{error.filename or data} cannot be written: {error.strerror}", "free some space"
        ) from None
    finally:
        for each in targets:
            shutil.rmtree(each / _SCRATCH, ignore_errors=True)
    return contents


def _contents(opened: Source, source: Path) -> Contents:
    with opened.open(CONTENTS) as file:
        contents = wire.decode(file.read(_CONTENTS_LIMIT_BYTES), Contents, f"backup {source}")
    if contents.schema > SCHEMA:
        raise InputError(f"{source} was made by kedge {contents.kedge}", "restore it with that one")
    return contents


def _fetch(
    opened: Source, contents: Contents, source: Path, data: Path, trust: Path | None
) -> None:
    digest = contents.database_sha256
    _take(opened, f"database/{digest}", data / DATABASE, digest, source)
    (data / ARTIFACTS).mkdir()
    for digest in contents.artifacts:
        name = f"artifacts/{digest[:2]}/{digest}"
        _take(opened, name, data / name, digest, source)
    for name in contents.files:
        if name in _IN_DATA:
            _take(opened, name, data / name, "", source)
        elif trust is not None:
            _take(opened, name, trust / name.removeprefix("trust/"), "", source)


def _take(opened: Source, name: str, target: Path, sha256: str, source: Path) -> None:
    """Writes a file of the backup; its bytes must be those of ``sha256``, if that is known."""
    if ".." in PurePosixPath(name).parts or PurePosixPath(name).is_absolute():
        raise InputError(f"{source} names {name}, which lies outside of it", "it is no backup")
    target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with opened.open(name) as file, target.open("wb") as out:
        target.chmod(0o600)
        shutil.copyfileobj(file, out, 1024 * 1024)
        out.flush()
        os.fsync(out.fileno())
    with target.open("rb") as written:
        found, _ = digest_of(written)
    if sha256 and found != sha256:
        raise InputError(f"{source} is damaged: {name} is not what was backed up")


def _finish_database(path: Path, contents: Contents) -> None:
    """Brings it to this server's revision, and says in its audit log what it is."""
    engine = connect(path)
    try:
        upgrade(engine)
        with Session(engine) as session, session.begin():
            # Who led when the backup was made does not any more: the new server signs at once.
            session.execute(update(LeaseRow).values(holder="", expires=0.0))
            detail = f"backup of {contents.made:.0f} by kedge {contents.kedge}"
            record(session, "operator", "restore", "database", detail)
    finally:
        engine.dispose()


def _settle(folder: Path) -> None:
    scratch = folder / _SCRATCH
    # The database last: without it a server would take the folder for a new one.
    for each in sorted(scratch.iterdir(), key=lambda path: path.name == DATABASE):
        for inner in each.rglob("*") if each.is_dir() else ():
            if inner.is_dir():
                archive.sync_folder(inner)
        each.rename(folder / each.name)
    archive.sync_folder(folder)
