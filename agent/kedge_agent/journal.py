"""What the board remembers: one state, replaced whole, with the report about it.

SQLite does the crash safety (WAL, ``synchronous=FULL``): a state and the report that tells of it
are one transaction, so neither is ever without the other. Stored words are decoupled from the
code: a phase that this version does not know is read as one that rolls back.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import msgspec

from kedge_agent.disk import disk_error, write_whole
from kedge_agent.local_protocol import SLOTS_FILE
from kedge_agent.state import State, read_state
from kedge_shared.errors import StorageError
from kedge_shared.ids import fresh_id
from kedge_shared.protocol import DeviceFacts, Report

_SCHEMA = """
CREATE TABLE IF NOT EXISTS state (id INTEGER PRIMARY KEY CHECK (id = 1), body BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS name (id INTEGER PRIMARY KEY CHECK (id = 1), body TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS outbox (seq INTEGER PRIMARY KEY AUTOINCREMENT, body BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS lost (id INTEGER PRIMARY KEY CHECK (id = 1), count INTEGER NOT NULL);
INSERT OR IGNORE INTO lost VALUES (1, 0);
CREATE TABLE IF NOT EXISTS told (id INTEGER PRIMARY KEY CHECK (id = 1), facts BLOB NOT NULL);
"""
#: Reports kept while the server is away: at five minutes a window, more than two weeks. Then the
#: oldest go; windows of telemetry before reports of deployments, which gates wait for.
OUTBOX_LIMIT = 5000
_OLDEST = """
DELETE FROM outbox WHERE seq IN (
  SELECT seq FROM outbox ORDER BY json_extract(CAST(body AS TEXT), '$.window') IS NULL, seq LIMIT ?
)
"""


class Journal:
    """The state on disk. One writer: the updater.

    Attributes:
        state: As it was saved last.
        name: Of this journal: sequence numbers of reports are unique within it.

    Args:
        folder: State directory; made when missing.

    Raises:
        StorageError: It cannot be opened or written.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._db = sqlite3.connect(folder / "journal.db", isolation_level=None, timeout=10)
            try:
                self._begin()
            except BaseException:
                # What stays open keeps SQLite from trying anew when the disk is writable again.
                self._db.close()
                raise
        except (OSError, sqlite3.Error) as error:
            raise StorageError(f"journal in {folder} cannot be opened: {error}") from None

    def _begin(self) -> None:
        self._db.execute("PRAGMA journal_mode=WAL")
        self._db.execute("PRAGMA synchronous=FULL")
        self._db.executescript(_SCHEMA)
        self._db.execute("INSERT OR IGNORE INTO name VALUES (1, ?)", (fresh_id("journal"),))
        self.name: str = self._db.execute("SELECT body FROM name").fetchone()[0]
        self.state = self._read()

    def save(self, state: State, report: Report | None = None) -> None:
        """Replaces the state, together with the report that tells of it.

        Raises:
            StorageError: The disk is full or read-only; the old state still holds.
        """
        body = msgspec.json.encode(state)
        with self._transaction():
            self._db.execute("INSERT OR REPLACE INTO state VALUES (1, ?)", (body,))
            if report is not None:
                self._put(report)
        self.state = state

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        with _told():
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._db.execute("COMMIT")
            except BaseException:
                # SQLite has rolled back by itself where it had to (a full disk, an I/O error).
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                raise

    def show_slots(self) -> None:
        """Writes the runner's view, where it has changed: a full disk is no reason not to start.

        Raises:
            StorageError: The disk is full or read-only; the old view still holds.
        """
        path, body = self._folder / SLOTS_FILE, msgspec.json.encode(self.state.slots)
        if not (path.is_file() and path.read_bytes() == body):
            write_whole(path, body)

    def queue(self, report: Report) -> None:
        """Queues a report on its own.

        Raises:
            StorageError: The disk is full or read-only.
        """
        with self._transaction():
            self._put(report)

    def tell_facts(self, facts: DeviceFacts, report: Report) -> None:
        """Queues a report that bears what the board is, unless that was told before.

        Raises:
            StorageError: The disk is full or read-only.
        """
        body = msgspec.json.encode(facts, order="deterministic")
        with self._transaction():
            known = self._db.execute("SELECT facts FROM told WHERE id = 1").fetchone()
            if known != (body,):
                self._put(replace(report, facts=facts))
                self._db.execute("INSERT OR REPLACE INTO told VALUES (1, ?)", (body,))

    def waiting(self, most: int) -> list[tuple[int, Report]]:
        """Returns the oldest reports that wait to be sent, with their sequence numbers.

        Raises:
            StorageError: The journal cannot be read.
        """
        query = "SELECT seq, body FROM outbox ORDER BY seq LIMIT ?"
        with _told("read"):
            rows = self._db.execute(query, (most,)).fetchall()
        return [(seq, msgspec.json.decode(body, type=Report)) for seq, body in rows]

    def sent(self, numbers: Iterable[int]) -> None:
        """Forgets reports that the server has acknowledged.

        Raises:
            StorageError: The disk is full: they are sent again, and the server knows them.
        """
        query = "DELETE FROM outbox WHERE seq = ?"
        with self._transaction():
            self._db.executemany(query, [(each,) for each in numbers])

    def give_up(self, number: int) -> None:
        """Forgets a report that the server does not take, and counts it as lost.

        Raises:
            StorageError: The disk is full or read-only.
        """
        with self._transaction():
            gone = self._db.execute("DELETE FROM outbox WHERE seq = ?", (number,)).rowcount
            self._count_lost(gone)

    @property
    def count_waiting(self) -> int:
        """Reports that wait to be sent.

        Raises:
            StorageError: The journal cannot be read.
        """
        with _told("read"):
            return int(self._db.execute("SELECT COUNT(*) FROM outbox").fetchone()[0])

    @property
    def lost(self) -> int:
        """Reports that were dropped unsent, ever.

        Raises:
            StorageError: The journal cannot be read.
        """
        with _told("read"):
            return int(self._db.execute("SELECT count FROM lost").fetchone()[0])

    def close(self) -> None:
        """Closes the database."""
        self._db.close()

    def _put(self, report: Report) -> None:
        self._db.execute("INSERT INTO outbox (body) VALUES (?)", (msgspec.json.encode(report),))
        (count,) = self._db.execute("SELECT COUNT(*) FROM outbox").fetchone()
        if count > OUTBOX_LIMIT:
            self._count_lost(self._db.execute(_OLDEST, (count - OUTBOX_LIMIT,)).rowcount)

    def _count_lost(self, count: int) -> None:
        self._db.execute("UPDATE lost SET count = count + ?", (count,))

    def _read(self) -> State:
        row = self._db.execute("SELECT body FROM state WHERE id = 1").fetchone()
        return read_state(row[0]) if row else State()


@contextmanager
def _told(doing: str = "written") -> Iterator[None]:
    """Turns what SQLite raises into the line that a person reads."""
    try:
        yield
    except sqlite3.Error as error:
        raise StorageError(f"journal cannot be {doing}: {error}", "free some space") from None


def open_read_only(folder: Path) -> State | None:
    """Reads the state without becoming a writer, for ``kedge agent status``.

    Returns:
        The state, or ``None`` where there is no journal yet.
    """
    path = folder / "journal.db"
    if not path.is_file():
        return None
    try:
        db = sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=5)
        row = db.execute("SELECT body FROM state WHERE id = 1").fetchone()
        db.close()
    except sqlite3.Error as error:
        raise disk_error(path, OSError(0, str(error))) from None
    return read_state(row[0]) if row else State()
