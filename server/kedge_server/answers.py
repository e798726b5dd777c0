"""Errors as HTTP answers: the same for routes and for what is answered before routing."""

from __future__ import annotations

import logging
import math

from sqlalchemy.exc import DataError, DBAPIError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from kedge_server.errors import BusyError, RequestError
from kedge_server.headers import HEADERS
from kedge_shared import wire
from kedge_shared.api import Problem
from kedge_shared.errors import KedgeError

_log = logging.getLogger("kedge.server")
#: How long clients are told to leave a server alone whose database is away.
_AWAY_SECONDS = 5

#: What every answer bears, as an answer before routing adds it.
SECURITY_HEADERS = [(name.lower().encode(), value.encode()) for name, value in HEADERS.items()]

#: Errors of the database that :func:`problem_of` knows.
DATABASE_ERRORS = (OperationalError, InterfaceError, DataError, OverflowError, PoolTimeoutError)


def problem_of(error: Exception) -> tuple[int, bytes, dict[str, str]]:
    """Returns status, body and further headers for an error that is not the server's own bug.

    Raises:
        Exception: ``error`` itself, where it is one.
    """
    if isinstance(error, BusyError):
        return _problem(error.status, error.what, error.mend, math.ceil(error.retry_after))
    if isinstance(error, KedgeError):
        return _problem(error.status if isinstance(error, RequestError) else 400, error.what,
                        error.mend)  # fmt: skip
    if isinstance(error, DataError | OverflowError):
        return _problem(422, "a value is not one that the database can hold", "see /docs")
    if isinstance(error, DATABASE_ERRORS):
        return _database(error)
    raise error


def _database(error: Exception) -> tuple[int, bytes, dict[str, str]]:
    text = str(error.orig if isinstance(error, DBAPIError) else error).strip().partition("\n")[0]
    _log.warning("database: %s", text)
    state = getattr(error.orig if isinstance(error, DBAPIError) else None, "sqlstate", None) or ""
    # SQLite: full, read-only, I/O error. PostgreSQL: class 53 is disk_full and its like.
    if "disk" in text or "readonly" in text or state == "53100":
        return _problem(507, f"database cannot be written: {text}", "free space on the server")
    # Away, restarted, locked, a deadlock that was broken up: nothing was done, ask again.
    return _problem(503, "the database cannot be used now", "ask again", _AWAY_SECONDS)


def _problem(
    status: int, what: str, mend: str, retry_after: int | None = None
) -> tuple[int, bytes, dict[str, str]]:
    headers = {} if retry_after is None else {"Retry-After": str(retry_after)}
    return status, wire.encode(Problem(error=what, mend=mend)), headers
