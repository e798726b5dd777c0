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


class ForbiddenError(RequestError):
    """It is known who asks, and that is not theirs to do."""

    status = 403


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
    """Too much was asked for.

    Attributes:
        retry_after: Seconds until it is worth asking again.
    """

    status = 429

    def __init__(self, what: str, mend: str = "", *, retry_after: float) -> None:
        super().__init__(what, mend or f"try again in {retry_after:.0f} s")
        self.retry_after = retry_after


class AwayError(BusyError):
    """The server cannot do it now, whoever asks; nothing was done."""

    status = 503


class FullError(RequestError):
    """The server's disk is full."""

    status = 507
