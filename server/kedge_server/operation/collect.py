"""Collection: takes away artifacts that nothing needs and nobody used lately.

It may run beside the server. Who is about to need an artifact (a publisher that asks whether it is
there, a publication that names it) sets its time; a file is first moved aside, its time is read
again, and it goes back if that is new. So a file is removed only if nobody asked for it up to the
moment in which it lost its name, and who asks afterwards is told that it is missing.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from sqlmodel import Session

from kedge_server.audit.service import record
from kedge_server.operation import inventory, references
from kedge_server.operation.folder import DataFolder


@dataclass(frozen=True, kw_only=True)
class Collected:
    """What was, or would be, taken away.

    Attributes:
        removed: Hash → bytes.
        kept: How many artifacts stay.
        young: Those among them that nothing needs yet.
        dry_run: Nothing was changed.
    """

    removed: dict[str, int]
    kept: int
    young: int
    dry_run: bool


def collect(
    data: Path, older_than_seconds: float, now: float, *, dry_run: bool,
    aside: Callable[[Path, Path], object] = os.rename,
) -> Collected:  # fmt: skip
    """Takes away what nothing needs.

    Args:
        data: The server's data folder.
        older_than_seconds: Only what was not uploaded or asked for since.
        now: Unix seconds.
        dry_run: Only say what would be.
        aside: Moves a file; a test does something of its own in between.

    Raises:
        InputError: There is no database.
    """
    folder = DataFolder(data)
    folder.put_back()
    # The files first: what is uploaded and published from here on is not among them.
    stored = folder.stored()
    with folder.engine() as engine:
        with Session(engine) as session:
            kept = references.kept(inventory.known(session, now), folder.read)
        ages = {digest: now - _time(path) for digest, path in stored.items()}
        chosen = references.collectable(ages, kept, older_than_seconds)
        removed = {
            digest: size
            for digest in chosen
            if (size := _take(folder, stored[digest], now - older_than_seconds, dry_run, aside))
            is not None
        }
        if removed and not dry_run:
            with Session(engine) as session, session.begin():
                detail = f"{len(removed)} artifacts, {sum(removed.values())} bytes"
                record(session, "operator", "collect", "artifacts", detail)
    left = len(stored) - len(removed)
    young = len(set(stored) - kept - set(removed))
    return Collected(removed=removed, kept=left, young=young, dry_run=dry_run)


def _take(
    folder: DataFolder, path: Path, newest: float, dry_run: bool,
    aside: Callable[[Path, Path], object],
) -> int | None:  # fmt: skip
    """Removes a file unless it was used after ``newest``; returns its length, bytes."""
    try:
        size = path.stat().st_size
        if dry_run:
            return size
        scratch = folder.collected / path.name
        scratch.parent.mkdir(exist_ok=True)
        aside(path, scratch)
        if scratch.stat().st_mtime > newest:
            scratch.rename(path)
            return None
        scratch.unlink()
    except FileNotFoundError:
        return None  # another collection was faster
    return size


def _time(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return float("inf")  # gone meanwhile: as young as can be
