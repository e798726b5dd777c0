"""Where a study is kept: an SQLite file of one's own, or a database that many machines share."""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import optuna
from optuna.exceptions import ExperimentalWarning, StorageInternalError
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, SQLAlchemyError

from kedge_shared.errors import InputError, StorageError

#: Accuracy up, median latency down, size down.
DIRECTIONS: tuple[Literal["maximize", "minimize"], ...] = ("maximize", "minimize", "minimize")
#: SQLite gives up on a locked file after 5 s by default; a slow disk under two workers needs more.
_SQLITE_PATIENCE_SECONDS = 60
_OPEN_ATTEMPTS = 5


def default_url(cache: Path) -> str:
    """Returns the URL of the SQLite file in the cache folder."""
    return f"sqlite:///{cache.resolve() / 'search.sqlite3'}"


def shown(url: str) -> str:
    """Returns a URL as it may be printed: without its password, and without a file's folders.

    Raises:
        InputError: It is no URL.
    """
    try:
        made = make_url(url)
        if made.get_backend_name() == "sqlite" and made.database:
            made = made.set(database=Path(made.database).name)
        return made.render_as_string(hide_password=True)
    except (ArgumentError, ValueError):
        raise InputError("search storage is no database URL", _MEND) from None


_MEND = "write it like sqlite:///search.sqlite3 or postgresql+psycopg://user:password@host/name"


@contextmanager
def quiet() -> Iterator[None]:
    """Silences Optuna: its log, and its warnings that an interface may change."""
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)
            yield
    finally:
        optuna.logging.set_verbosity(before)


@contextmanager
def storage_errors(url: str) -> Iterator[None]:
    """Turns what a database raises into one line.

    Raises:
        StorageError: The database is gone, full, read-only or locked for good.
    """
    try:
        yield
    except (StorageInternalError, SQLAlchemyError) as error:
        cause = error.__cause__ if isinstance(error, StorageInternalError) else error
        said = str(getattr(cause, "orig", None) or error).splitlines()[0]
        raise StorageError(
            f"search storage {shown(url)} cannot be used: {said}",
            "what was measured so far is kept; build again to go on",
        ) from None


def open_study(url: str, name: str, *, heartbeat_seconds: int, stale_seconds: int) -> optuna.Study:
    """Opens the study of that name, or makes it.

    Args:
        url: Any database URL that SQLAlchemy takes.
        name: Of the study.
        heartbeat_seconds: How often a running trial says that it lives.
        stale_seconds: Silence after which a running trial counts as dead.

    Raises:
        InputError: The URL is wrong, or the database's driver is not installed.
        StorageError: The database cannot be opened.
    """
    hidden = shown(url)
    patience = {"connect_args": {"timeout": _SQLITE_PATIENCE_SECONDS}}
    with storage_errors(url):
        for attempt in range(_OPEN_ATTEMPTS):
            try:
                storage = optuna.storages.RDBStorage(
                    url,
                    engine_kwargs=patience if url.startswith("sqlite") else None,
                    heartbeat_interval=heartbeat_seconds,
                    grace_period=stale_seconds,
                )
                return optuna.create_study(
                    storage=storage, study_name=name, directions=DIRECTIONS, load_if_exists=True
                )
            except (ArgumentError, ImportError):
                raise InputError(
                    f"search storage {hidden} names an unknown database or one whose driver "
                    "is not installed", _MEND,
                ) from None  # fmt: skip
            except (StorageInternalError, SQLAlchemyError):
                # Two workers that open a fresh database both create its tables; one of them fails
                # once and finds them there the next time.
                if attempt == _OPEN_ATTEMPTS - 1:
                    raise
                time.sleep(0.2 * (attempt + 1))
    raise RuntimeError("unreachable: the last attempt returns or raises")
