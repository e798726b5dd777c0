"""The database: SQLite by default, PostgreSQL when grown; brought to the newest revision at start.

What differs between the two stands here: how they are opened, how writers wait for one another,
and whose clock counts.
"""

from __future__ import annotations

import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from alembic import command
from alembic.config import Config
from alembic.util.exc import CommandError
from sqlalchemy import (
    URL,
    ColumnElement,
    Connection,
    Engine,
    Float,
    Table,
    create_engine,
    event,
    func,
    literal_column,
    make_url,
    select,
    text,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import ArgumentError, NoSuchModuleError, OperationalError
from sqlalchemy.pool import NullPool
from sqlmodel import Session

from kedge_shared.errors import InputError, StorageError

_BUSY_MS = 10_000
_CONNECT_SECONDS = 5
_STATEMENT_MS, _LOCK_MS, _IDLE_MS = 30_000, 10_000, 60_000
#: Migrations rewrite tables, and wait for another server's.
_MIGRATION_MS = 3_600_000


def url_of(given: Path | str) -> URL:
    """Returns the address of a database: a file is SQLite's.

    Raises:
        InputError: Neither a file nor a PostgreSQL URL.
    """
    if isinstance(given, Path):
        return URL.create("sqlite", database=str(given))
    try:
        url = make_url(given)
    except ArgumentError:
        url = URL.create("unreadable")
    if url.drivername not in {"postgresql", "postgres", "postgresql+psycopg"}:
        raise InputError(
            "the database's address is no PostgreSQL URL",
            "write postgresql://USER@HOST/NAME, or leave it out for SQLite",
        )
    return url.set(drivername="postgresql+psycopg")


def connect(where: Path | str, connections: int = 10) -> Engine:
    """Opens a database: a file, or a PostgreSQL URL.

    Args:
        where: Which.
        connections: At most so many at once, on PostgreSQL.

    Raises:
        InputError: The URL is malformed, or psycopg is missing.
        StorageError: It cannot be opened.
    """
    url = url_of(where)
    if url.get_backend_name() == "sqlite":
        engine = create_engine(url, connect_args={"check_same_thread": False})
        event.listens_for(engine, "connect")(_pragmas)
        return engine
    try:
        return create_engine(
            url, pool_size=connections, max_overflow=0, pool_timeout=_CONNECT_SECONDS,
            # The database may have been restarted since a connection was last used.
            pool_pre_ping=True, connect_args=_limits(_STATEMENT_MS),
        )  # fmt: skip
    except (NoSuchModuleError, ImportError):
        raise InputError(
            "PostgreSQL needs psycopg", "install it with: pip install 'kedge[postgresql]'"
        ) from None


def _pragmas(connection: Any, _record: Any) -> None:
    # FULL: an acknowledged report or upload is on the disk, also after a power cut.
    for line in ("journal_mode=WAL", "synchronous=FULL", f"busy_timeout={_BUSY_MS}",
                 "foreign_keys=ON"):  # fmt: skip
        connection.execute(f"PRAGMA {line}")


def _limits(statement_ms: int) -> dict[str, Any]:
    """Returns what keeps one stuck statement or server from holding up all others."""
    limits = {
        "statement_timeout": statement_ms, "lock_timeout": min(_LOCK_MS, statement_ms),
        "idle_in_transaction_session_timeout": _IDLE_MS,
    }  # fmt: skip
    options = " ".join(f"-c {name}={value}" for name, value in limits.items())
    # A database without an encoding (SQL_ASCII) would be answered to in bytes.
    return {"connect_timeout": _CONNECT_SECONDS, "options": options, "application_name": "kedge",
            "client_encoding": "utf8"}  # fmt: skip


def migrations() -> Path:
    """Returns the folder of Alembic's scripts: in the wheel, or at the top of a checkout."""
    packaged = Path(__file__).parent / "migrations"
    return packaged if packaged.is_dir() else Path(__file__).parents[2] / "migrations"


def upgrade(engine: Engine) -> None:
    """Applies every migration that is missing; several servers may start at once.

    Raises:
        StorageError: The database is newer than this server, or cannot be reached or written.
    """
    config = Config()
    config.set_main_option("script_location", str(migrations()))
    # SQLite cannot alter a column: Alembic copies the table and drops the old one, which a row that
    # refers to it forbids. A connection of its own does not enforce that; what it left is checked.
    grown = engine.dialect.name == "postgresql"
    options = {"connect_args": _limits(_MIGRATION_MS)} if grown else {}
    plain = create_engine(engine.url, poolclass=NullPool, **options)
    try:
        with plain.begin() as connection:
            if grown:
                connection.execute(_LOCK, {"key": _key("migrations")})
            config.attributes["connection"] = connection
            command.upgrade(config, "head")
            if _dangling(connection):
                raise CommandError("rows refer to others that are not there")
    except OperationalError as error:
        raise _unreachable(engine, error) from None
    except CommandError as error:
        raise StorageError(
            f"database does not fit this server: {error}", "run the newer kedge that wrote it"
        ) from None


def _unreachable(engine: Engine, error: OperationalError) -> StorageError:
    first = str(error.orig).strip().partition("\n")[0]
    if engine.dialect.name == "sqlite":
        what = f"database {engine.url.database} cannot be written: {first}"
        return StorageError(what, "free some space or choose another --data")
    where = engine.url.render_as_string(hide_password=True)
    return StorageError(f"database {where} cannot be used: {first}", "check that it is up")


def _dangling(connection: Connection) -> bool:
    """Says whether a row refers to one that is not there; other databases enforce it anyway."""
    if connection.dialect.name != "sqlite":
        return False
    return connection.exec_driver_sql("PRAGMA foreign_key_check").first() is not None


@contextmanager
def transaction(engine: Engine) -> Iterator[Session]:
    """One transaction for one command: committed at the end, rolled back on any error."""
    with Session(engine, expire_on_commit=False) as session, session.begin():
        yield session
        for last in session.info.pop("at_commit", ()):
            session.flush()
            last(session)


def at_commit(session: Session, work: Callable[[Session], None]) -> None:
    """Does something at the very end of a transaction that :func:`transaction` began."""
    session.info.setdefault("at_commit", []).append(work)


_LOCK = text("SELECT pg_advisory_xact_lock(:key)")


def _key(name: str) -> int:
    return zlib.crc32(f"kedge {name}".encode())


def exclusive(session: Session, name: str) -> None:
    """Waits until no other transaction holds ``name``, and holds it until this one ends.

    SQLite has one writer at a time, whatever it writes; but its driver begins only with the first
    write, and what was read before that may be old by then.
    """
    if session.get_bind().dialect.name == "postgresql":
        session.execute(_LOCK, {"key": _key(name)})
        return
    connection = session.connection()
    raw: Any = connection.connection.driver_connection
    if not raw.in_transaction:
        connection.exec_driver_sql("BEGIN IMMEDIATE")


def clock(session: Session) -> ColumnElement[float]:
    """Returns the database's clock, Unix seconds: servers' own may differ."""
    if session.get_bind().dialect.name == "postgresql":
        return func.extract("epoch", func.clock_timestamp()).cast(Float)
    return literal_column("(julianday('now') - 2440587.5) * 86400.0", Float())


def now(session: Session) -> float:
    """Returns what time it is, Unix seconds, for what several servers write and compare."""
    if session.get_bind().dialect.name == "postgresql":
        return float(session.execute(select(clock(session))).scalar_one())
    return time.time()


def upsert(
    session: Session, table: Table, rows: Sequence[dict[str, Any]], changed: Sequence[str]
) -> None:
    """Inserts rows by the thousand; where the primary key is there, ``changed`` are set."""
    if not rows:
        return
    grown = session.get_bind().dialect.name == "postgresql"
    statement: Any = (postgresql if grown else sqlite).insert(table)
    keys = [each.name for each in table.primary_key]
    values = {each: statement.excluded[each] for each in changed}
    session.connection().execute(
        statement.on_conflict_do_update(index_elements=keys, set_=values), rows
    )
