"""The database: SQLite by default, brought to the newest revision at start."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from alembic import command
from alembic.config import Config
from alembic.util.exc import CommandError
from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.exc import OperationalError
from sqlalchemy.pool import NullPool
from sqlmodel import Session

from kedge_shared.errors import StorageError

_BUSY_MS = 10_000


def connect(path: Path) -> Engine:
    """Opens the database of a data folder.

    Raises:
        StorageError: It cannot be opened.
    """
    engine = create_engine(f"sqlite:///{path}", connect_args={"check_same_thread": False})

    @event.listens_for(engine, "connect")
    def _pragmas(connection: Any, _record: Any) -> None:
        # FULL: an acknowledged report or upload is on the disk, also after a power cut.
        for line in ("journal_mode=WAL", "synchronous=FULL", f"busy_timeout={_BUSY_MS}",
                     "foreign_keys=ON"):  # fmt: skip
            connection.execute(f"PRAGMA {line}")

    return engine


def migrations() -> Path:
    """Returns the folder of Alembic's scripts: in the wheel, or at the top of a checkout."""
    packaged = Path(__file__).parent / "migrations"
    return packaged if packaged.is_dir() else Path(__file__).parents[2] / "migrations"


def upgrade(engine: Engine) -> None:
    """Applies every migration that is missing.

    Raises:
        StorageError: The database is newer than this server, or cannot be written.
    """
    config = Config()
    config.set_main_option("script_location", str(migrations()))
    # SQLite cannot alter a column: Alembic copies the table and drops the old one, which a row that
    # refers to it forbids. A connection of its own does not enforce that; what it left is checked.
    plain = create_engine(engine.url, poolclass=NullPool)
    try:
        with plain.begin() as connection:
            config.attributes["connection"] = connection
            command.upgrade(config, "head")
            if _dangling(connection):
                raise CommandError("rows refer to others that are not there")
    except OperationalError as error:
        raise StorageError(
            f"database {engine.url.database} cannot be written: {error.orig}",
            "free some space or choose another --data",
        ) from None
    except CommandError as error:
        raise StorageError(
            f"database does not fit this server: {error}", "run the newer kedge that wrote it"
        ) from None


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
