"""What the runner serves after a start: decided from two small files, before any network."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import msgspec

from kedge_agent import limits
from kedge_agent.admission import RESERVE_MB, Isolation
from kedge_agent.blobs import BlobStore
from kedge_agent.building.forms import loadable
from kedge_agent.detector import Detector, load_detector, open_slot
from kedge_agent.disk import write_whole
from kedge_agent.local_protocol import STARTS_ENV, STARTS_FILE, Slot, Slots
from kedge_agent.runtimes.base import Runtime
from kedge_agent.runtimes.registry import left_mb, takes_mb
from kedge_shared.errors import KedgeError, StorageError

#: Starts in probation without health in between after which the old engine is taken.
CRASH_LOOP = 3


class Starts(msgspec.Struct, frozen=True):
    """How often the runner was started since it was last healthy.

    Attributes:
        deployment: Whose probation it was.
        count: Starts.
    """

    deployment: str = ""
    count: int = 0


@dataclass(frozen=True)
class Begun:
    """What was loaded.

    Attributes:
        active: Engine that serves, or ``None`` on a board that has none yet.
        previous: Engine to go back to.
        fell_back: Why the previous engine serves instead of the active one; empty if not.
    """

    active: Detector | None
    previous: Detector | None
    fell_back: str


def choose_at_start(slots: Slots, starts: int) -> Literal["active", "previous", "nothing"]:
    """Says which slot serves. Pure.

    Args:
        slots: As the updater left them.
        starts: Starts of this probation without health, this one included.
    """
    if slots.probation and slots.previous is not None and starts >= CRASH_LOOP:
        return "previous"
    if slots.active is not None:
        return "active"
    return "previous" if slots.previous is not None else "nothing"


def count_start(state_dir: Path, slots: Slots, in_a_row: int = 0) -> int:
    """Counts this start on disk, before anything is loaded, and returns the count.

    Args:
        state_dir: Where the count lies.
        slots: Whose probation it is.
        in_a_row: Starts that the supervisor has counted; they are what is left to go by where the
            disk cannot be written.
    """
    before = _read_starts(state_dir)
    count = before.count + 1 if before.deployment == slots.deployment else 1
    written = _write_starts(state_dir, Starts(slots.deployment, count))
    return count if written else max(count, in_a_row)


def forget_starts(state_dir: Path, deployment: str) -> None:
    """Notes that the engine proved itself healthy."""
    if _read_starts(state_dir) != Starts(deployment, 0):
        _write_starts(state_dir, Starts(deployment, 0))


def load_at_start(
    state_dir: Path,
    slots: Slots,
    store: BlobStore,
    runtimes: Mapping[str, Runtime],
    threads: int,
    isolation: Isolation | None = None,
) -> Begun:
    """Loads what :func:`choose_at_start` says; if that fails, the other one."""
    in_a_row = int(os.environ.get(STARTS_ENV, "0"))
    starts = count_start(state_dir, slots, in_a_row) if slots.probation else 0
    choice = choose_at_start(slots, starts)
    if choice == "nothing":
        return Begun(None, None, "")
    why = f"{starts} starts in probation" if choice == "previous" and slots.active else ""
    order = [slots.active, slots.previous] if choice == "active" else [slots.previous]
    detector: Detector | None = None
    for slot in order:
        if slot is None or detector is not None:
            continue
        try:
            detector = load_detector(slot, store, runtimes, threads, isolation)
        except (KedgeError, MemoryError) as error:
            why = why or str(error) or "out of memory"
    if detector is None or detector.slot == slots.previous:
        return Begun(detector, None, why if detector is not None else "")
    return Begun(detector, _beside(slots, store, runtimes, threads, isolation), "")


def _beside(
    slots: Slots,
    store: BlobStore,
    runtimes: Mapping[str, Runtime],
    threads: int,
    isolation: Isolation | None,
) -> Detector | None:
    if not slots.probation or slots.previous is None:
        return None
    try:
        if not fits(slots.previous, store, runtimes):
            return None
        return load_detector(slots.previous, store, runtimes, threads, isolation)
    except (KedgeError, MemoryError):
        # Without it there is no reverse shadow; going back then takes a load.
        return None


def fits(slot: Slot, store: BlobStore, runtimes: Mapping[str, Runtime]) -> bool:
    """Says whether there is room for one engine more.

    Raises:
        KedgeError: Its documents cannot be read.
    """
    wanted = loadable(open_slot(slot, store).manifest, slot.form, store)
    free = min(limits.available_memory_mb(), left_mb(wanted, runtimes))
    return takes_mb(wanted, runtimes) + RESERVE_MB <= free


def _read_starts(state_dir: Path) -> Starts:
    try:
        return msgspec.json.decode((state_dir / STARTS_FILE).read_bytes(), type=Starts)
    except (OSError, msgspec.MsgspecError):
        return Starts()


def _write_starts(state_dir: Path, starts: Starts) -> bool:
    """Says whether it could be written; a full or read-only disk keeps no loop from starting."""
    with suppress(StorageError):
        write_whole(state_dir / STARTS_FILE, msgspec.json.encode(starts))
        return True
    return False


def same(left: Slot | None, right: Slot | None) -> bool:
    """Says whether two slots hold the same build."""
    return left is not None and right is not None and left.manifest == right.manifest
