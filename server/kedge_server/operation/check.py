"""Check: is everything there that boards and people will ask for, and as it was stored?"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing
from datetime import datetime, timedelta, timezone

from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlmodel import Session

from kedge_server.audit import service as audit
from kedge_server.database import migrations
from kedge_server.operation import inventory, references
from kedge_server.operation.expiry import expiries
from kedge_server.operation.findings import Checked, Finding, Level, expiring, ordered
from kedge_server.operation.folder import DataFolder, digest_of
from kedge_server.repository.signers import load_keys
from kedge_server.settings import ServerSettings
from kedge_shared.audit import broken_at
from kedge_shared.errors import KedgeError

#: No log is longer.
_EVERY = 2**31


def check(settings: ServerSettings, now: datetime, *, hashed: bool = True) -> Checked:
    """Looks at a server's folders; changes nothing, and may run beside the server.

    Args:
        settings: The server's.
        now: Time.
        hashed: Read every needed artifact; otherwise its length must do.

    Raises:
        InputError: There is no database.
    """
    folder = DataFolder(settings.data)
    damage = _sqlite(folder)
    if damage:
        return Checked(findings=tuple(damage), revision="")
    found = [*_keys(settings)]
    with folder.engine() as engine, Session(engine) as session:
        revision = MigrationContext.configure(session.connection()).get_current_revision() or ""
        found += _migrations(revision)
        found += expiring(expiries(session), _lives(settings), now)
        rows = audit.after(session, 0, _EVERY)
        broken = broken_at(rows)
        if broken is not None:
            what = f"audit log was altered at row {broken}"
            found.append(Finding(level="broken", subject="audit", what=what,
                                 mend="compare it with a backup"))  # fmt: skip
        known = inventory.known(session, now.timestamp())
    needs = references.required(known, folder.read)
    found += _artifacts(folder, needs, hashed)
    found += _files(folder, references.kept(known, folder.read))
    return Checked(
        findings=ordered(found), revision=revision, artifacts=len(needs),
        artifact_bytes=sum(each.length for each in needs.values()), audit_rows=len(rows),
        hashed=hashed,
    )  # fmt: skip


def _sqlite(folder: DataFolder) -> list[Finding]:
    try:
        with closing(sqlite3.connect(folder.database)) as base:
            said = [row[0] for row in base.execute("PRAGMA integrity_check(3)")]
            dangling = base.execute("PRAGMA foreign_key_check").fetchone()
    except sqlite3.DatabaseError as error:
        said, dangling = [str(error)], None
    mend = "restore a backup"
    found = [
        Finding(level="broken", subject="database", what=f"database is damaged: {each}", mend=mend)
        for each in said
        if each != "ok"
    ]
    if dangling:
        what = f"a row of {dangling[0]} refers to one that is not there"
        found.append(Finding(level="broken", subject="database", what=what, mend=mend))
    return found


def _keys(settings: ServerSettings) -> Iterator[Finding]:
    try:
        load_keys(settings.trust)
    except KedgeError as error:
        yield Finding(level="broken", subject="keys", what=error.what, mend=error.mend)


def _migrations(revision: str) -> Iterator[Finding]:
    config = Config()
    config.set_main_option("script_location", str(migrations()))
    script = ScriptDirectory.from_config(config)
    head = script.get_current_head()
    if revision == head:
        return
    if revision in {each.revision for each in script.walk_revisions()}:
        what, mend = f"database is at revision {revision}, this kedge at {head}", "start the server"
        yield Finding(level="attention", subject="migrations", what=what, mend=mend)
    else:
        what = f"database is at revision {revision or 'none'}, which this kedge does not know"
        yield Finding(level="broken", subject="migrations", what=what,
                      mend="run the newer kedge that wrote it")  # fmt: skip


def _lives(settings: ServerSettings) -> dict[str, timedelta]:
    return {
        "timestamp": timedelta(hours=settings.timestamp_hours),
        "snapshot": timedelta(days=settings.snapshot_days),
    }


def _artifacts(
    folder: DataFolder, needs: Mapping[str, references.Need], hashed: bool
) -> Iterator[Finding]:
    for digest, need in needs.items():
        what = ""
        try:
            with folder.artifact(digest).open("rb") as file:
                found, length = digest_of(file) if hashed else (digest, file.seek(0, 2))
        except FileNotFoundError:
            what = f"artifact {digest[:12]} is missing, needed as {need.why}"
        except OSError as error:
            what = f"artifact {digest[:12]} cannot be read: {error.strerror}"
        else:
            if (found, length) != (digest, need.length):
                what = f"artifact {digest[:12]} is damaged, needed as {need.why}"
        if what:
            yield Finding(level="broken", subject="artifacts", what=what,
                          mend="upload it again (kedge publish), or restore a backup")  # fmt: skip


def _files(folder: DataFolder, kept: set[str]) -> Iterator[Finding]:
    def finding(level: Level, what: str, mend: str) -> Finding:
        return Finding(level=level, subject="files", what=what, mend=mend)

    orphans = [path for digest, path in folder.stored().items() if digest not in kept]
    if orphans:
        size = sum(each.stat().st_size for each in orphans)
        what = f"{len(orphans)} artifacts are not needed, {size / 1e6:.1f} MB"
        yield finding("note", what, "kedge server collect")
    if any(folder.collected.glob("*")):
        mend = "kedge server collect --dry-run puts back what it had taken"
        yield finding("attention", "a collection was broken off", mend)
    strangers = folder.strangers()
    if strangers:
        what = f"{len(strangers)} files are no artifacts, {strangers[0].name} first"
        yield finding("attention", what, "move them away")


def utc_now() -> datetime:
    """Returns the time, UTC."""
    return datetime.now(timezone.utc)
