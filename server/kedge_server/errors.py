"""Errors that become HTTP answers; each body is an :class:`kedge_shared.api.Problem`."""

from __future__ import annotations

from kedge_shared.errors import KedgeError


class RequestError(KedgeError):
    """The caller asked for something that cannot be.

    Attributes:
        status: HTTP status of the answer.
    """

    status = 400


class UnauthorizedError(RequestError):
    """No token, or not one of ours."""

    status = 401


class NotFoundError(RequestError):
    """There is no such thing."""

    status = 404


class ConflictError(RequestError):
    """It contradicts what is there."""

    status = 409


class StaleError(RequestError):
    """Somebody changed it in between."""

    status = 412


class TooLargeError(RequestError):
    """The body is longer than allowed."""

    status = 413


class MalformedError(RequestError):
    """A field is missing, of another type or out of its bounds."""

    status = 422


class BusyError(RequestError):
    """It may be asked again, later.

    Attributes:
        seconds: When (Retry-After).
    """

    status = 503

    def __init__(self, what: str, mend: str, seconds: int) -> None:
        super().__init__(what, mend)
        self.seconds = seconds


class FullError(RequestError):
    """The server's disk is full."""

    status = 507
