"""Errors as HTTP answers: the same for routes and for what is answered before routing."""

from __future__ import annotations

import logging

from sqlalchemy.exc import DataError, DBAPIError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from kedge_server.errors import BusyError, RequestError
from kedge_shared import wire
from kedge_shared.api import Problem
from kedge_shared.errors import KedgeError

_log = logging.getLogger("kedge.server")
#: How long clients are told to leave a server alone whose database is away.
_AWAY_SECONDS = 5

#: What every answer bears; those that may be kept (artifacts) say so themselves.
SECURITY_HEADERS = (
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"x-frame-options", b"DENY"),
    (b"content-security-policy", b"frame-ancestors 'none'"),
    (b"cross-origin-resource-policy", b"same-origin"),
    # Answers hold tokens and assignments.
    (b"cache-control", b"no-store"),
)


class SecurityHeaders:
    """Middleware: adds ``SECURITY_HEADERS`` to answers that do not say otherwise.

    Args:
        app: What is behind it.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Hands a request on."""

        async def secured(message: Message) -> None:
            if message["type"] == "http.response.start":
                given = {name.lower() for name, _ in message["headers"]}
                more = [each for each in SECURITY_HEADERS if each[0] not in given]
                message["headers"] = [*message["headers"], *more]
            await send(message)

        await self._app(scope, receive, secured if scope["type"] == "http" else send)


#: Errors of the database that :func:`problem_of` knows.
DATABASE_ERRORS = (OperationalError, InterfaceError, DataError, PoolTimeoutError)


def problem_of(error: Exception) -> tuple[int, bytes, dict[str, str]]:
    """Returns status, body and further headers for an error that is not the server's own bug.

    Raises:
        Exception: ``error`` itself, where it is one.
    """
    if isinstance(error, BusyError):
        return _problem(503, error.what, error.mend, error.seconds)
    if isinstance(error, KedgeError):
        return _problem(error.status if isinstance(error, RequestError) else 400, error.what,
                        error.mend)  # fmt: skip
    if isinstance(error, DataError):
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
