"""What an answer means for a delivery, and when it is tried again. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from kedge_shared.events import DeliveryState

_FIRST_SECONDS, _LONGEST_SECONDS = 5.0, 4 * 3600.0
_GONE = 410


@dataclass(frozen=True)
class Outcome:
    """What became of an attempt.

    Attributes:
        state: Of the delivery.
        due: Unix seconds of the next attempt.
        status: HTTP status, or ``None`` without an answer.
        reason: Why it failed.
        gone: The receiver says that it wants nothing any more.
    """

    state: DeliveryState
    due: float
    status: int | None = None
    reason: str = ""
    gone: bool = False


def wait_seconds(attempts: int, share: float) -> float:
    """Returns how long to wait after so many attempts, seconds.

    Args:
        attempts: So far.
        share: 0..1, drawn anew each time: receivers that came back are not met by all at once.
    """
    longest = min(_FIRST_SECONDS * 4.0 ** min(attempts - 1, 10), _LONGEST_SECONDS)
    return longest * (0.75 + share / 2)


def judge(
    status: int | None, reason: str, attempts: int, most: int, now: float, share: float
) -> Outcome:
    """Says what an attempt means.

    Args:
        status: Of the answer, or ``None`` without one.
        reason: Why there was none.
        attempts: With this one.
        most: Attempts of a delivery.
        now: Unix seconds.
        share: As :func:`wait_seconds`.
    """
    if status is not None and 200 <= status < 300:
        return Outcome("delivered", now, status)
    said = reason or f"answered {status}"
    if status == _GONE or attempts >= most:
        return Outcome("given_up", now, status, said, gone=status == _GONE)
    return Outcome("pending", now + wait_seconds(attempts, share), status, said)
