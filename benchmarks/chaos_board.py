"""What must hold on a board whatever ended it, and how a trial of that is written down."""

from __future__ import annotations

import sqlite3
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import msgspec

from kedge_agent.blobs import BlobStore
from kedge_agent.fetching import verify_files
from kedge_agent.journal import open_read_only
from kedge_agent.local_protocol import SLOTS_FILE, Slots
from kedge_agent.state import State
from kedge_shared.errors import KedgeError
from kedge_shared.ids import sha256_hex
from tests.sim.traffic import Traffic

#: engine: no verified engine runs or could run; altered: a stored file is not what its name says;
#: state: journal and slots are unreadable or contradict one another; forgotten: what was saved is
#: gone; blamed: an engine is quarantined, or an update ended for harm, though nothing is wrong
#: with it; stuck: an update or a start does not come to its end; token: a one-time token is used
#: up, and the board does not know who it is.
Kind = Literal["engine", "altered", "state", "forgotten", "blamed", "stuck", "token"]
_LOOKS = 5


@dataclass
class Record:
    """What a trial has found so far.

    Attributes:
        title: Of the trial, for the progress line.
        planned: Blows that are planned.
        done: Blows so far.
        found: What should not be, by kind.
        again: Bytes sent once more of files that were whole on the board.
        recoveries: Seconds from each blow to the board's own work again.
        updates: Confirmed.
        retried: Updates that an operator had to begin again.
        lost: Frames that are missing although their runner lived.
    """

    title: str
    planned: int
    done: int = 0
    found: Counter[str] = field(default_factory=Counter)
    again: int = 0
    recoveries: list[float] = field(default_factory=list)
    updates: int = 0
    retried: int = 0
    lost: int = 0
    _struck: set[int] = field(default_factory=set)
    _began: float = field(default_factory=time.monotonic)

    @property
    def survived(self) -> int:
        """Blows after which everything was as it must be."""
        return self.done - len(self._struck)

    def note(self, kind: Kind, text: str) -> None:
        """Writes a finding down and says so."""
        self.found[kind] += 1
        self._struck.add(self.done)
        print(f"\n{self.title} {self.done}: {kind}: {text}", file=sys.stderr, flush=True)

    def show(self) -> None:
        """Shows how far it is and how long it will take."""
        spent = time.monotonic() - self._began
        left = spent / max(1, self.done) * (self.planned - self.done)
        print(
            f"\r{self.title}: {self.done} of {self.planned}, {self.found.total()} findings, "
            f"{self.updates} updates, {left / 60:.0f} min left ",
            end="", file=sys.stderr, flush=True,
        )  # fmt: skip


@dataclass
class Whole:
    """Files that were whole on the board, and what had been sent of them by then.

    Attributes:
        traffic: Of the server.
        before: Hash → bytes that had been sent when the file was seen whole.
    """

    traffic: Traffic
    before: dict[str, int] = field(default_factory=dict)

    def swept(self) -> int:
        """Returns bytes sent again so far, before the board removes what it needs no more."""
        again = sum(self.traffic.sent[name] - sent for name, sent in self.before.items())
        self.before = {}
        return again

    def settle(self, state_dir: Path) -> int:
        """Returns bytes sent since the last call of files that were whole then; looks anew."""
        again = self.swept()
        found = [*_whole(state_dir / "blobs"), *_whole(state_dir / "partial")]
        self.before = {name: self.traffic.sent[name] for name in found}
        return again


def examine(state_dir: Path, signed: set[str], record: Record) -> State:
    """Checks everything that can be read from the disk of a board; returns what it remembers.

    Args:
        state_dir: Of the board; its updater may be at work.
        signed: Hashes of the engines that the builders signed.
        record: Takes the findings.
    """
    for kind, text in _faults(state_dir, signed):
        record.note(kind, text)
    try:
        return open_read_only(state_dir) or State()
    except KedgeError:
        return State()


def _faults(state_dir: Path, signed: set[str]) -> Iterator[tuple[Kind, str]]:
    try:
        state, slots = _agreeing(state_dir)
    except (KedgeError, sqlite3.Error, msgspec.MsgspecError, OSError) as error:
        yield "state", str(error)
        return
    for reason in state.quarantine.values():
        yield "blamed", reason
    if slots is None:
        yield "state", f"slots.json serves what the journal does not know (phase {_phase(state)})"
    elif slots.active is None:
        if state.active is not None:
            yield "engine", "the journal has an engine and slots.json none"
    else:
        if slots.active.engine not in signed:
            yield "engine", f"{slots.active.engine[:12]} was not signed"
        try:
            verify_files(slots.active, BlobStore(state_dir / "blobs"))
        except KedgeError as error:
            yield "engine", str(error)
    yield from (("altered", each) for each in _altered(state_dir / "blobs"))


def _agreeing(state_dir: Path) -> tuple[State, Slots | None]:
    """Reads journal and slots; an updater at work may be between the two for a moment."""
    for _ in range(_LOOKS):
        state = open_read_only(state_dir) or State()
        slots = _slots(state_dir)
        known = {each.manifest for each in (state.active, state.previous) if each is not None}
        if slots.active is None or slots.active.manifest in known:
            return state, slots
        time.sleep(0.1)
    return state, None


def check_journal(state_dir: Path) -> str:
    """Returns what SQLite finds wrong with the journal, or an empty string."""
    path = state_dir / "journal.db"
    if not path.is_file():
        return ""
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=5)) as db:
        said = str(db.execute("PRAGMA integrity_check").fetchone()[0])
    return "" if said == "ok" else said


def _slots(state_dir: Path) -> Slots:
    path = state_dir / SLOTS_FILE
    return msgspec.json.decode(path.read_bytes(), type=Slots) if path.is_file() else Slots()


def _phase(state: State) -> str:
    return state.deployment.phase.value if state.deployment else "none"


def _altered(blobs: Path) -> Iterator[str]:
    for path, data in _files(blobs):
        if sha256_hex(data) != path.name:
            yield f"{path.name[:12]} holds {len(data)} bytes of something else"


def _whole(folder: Path) -> Iterator[str]:
    for path, data in _files(folder):
        if sha256_hex(data) == path.name:
            yield path.name


def _files(folder: Path) -> Iterator[tuple[Path, bytes]]:
    """Yields files and their bytes; names that begin with a dot are not finished yet."""
    if not folder.is_dir():
        return
    for path in list(folder.iterdir()):
        if path.name.startswith("."):
            continue
        try:
            yield path, path.read_bytes()
        except FileNotFoundError:
            continue  # swept meanwhile
        except OSError as error:
            # A name that a torn disk still has; no blob is of these bytes.
            yield path, str(error).encode()
