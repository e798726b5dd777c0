"""When to ask again: a policy without a clock and without chance of its own."""

from __future__ import annotations

from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Literal

#: Statuses of a server that is busy or between two states: the same request may succeed later.
BUSY = frozenset({408, 425, 429, 500, 502, 503, 504})
#: Doubling beyond it changes nothing, and 2 ** 1024 is no float any more.
_DOUBLINGS = 32
#: A server must not send a board to sleep for ever: by mistake or on purpose.
RETRY_AFTER_LIMIT_SECONDS = 3600.0
#: Longest pause after refusals, seconds.
_REFUSED_LIMIT_SECONDS = 4 * 3600.0
#: Share of a pause that the server asked for by which boards are spread.
_SPREAD = 0.1

Meaning = Literal["busy", "refused"]


@dataclass(frozen=True, kw_only=True)
class Backoff:
    """Full jitter: a random wait up to a cap that doubles.

    Brooker, "Exponential backoff and jitter", AWS Architecture Blog 2015: of the variants it
    needs the fewest calls until everyone was served.

    Attributes:
        first_seconds: Cap of the first wait.
        longest_seconds: Cap of every wait.
    """

    first_seconds: float = 0.5
    longest_seconds: float = 60.0

    def cap(self, attempt: int) -> float:
        """Returns the longest that the wait after ``attempt`` (from 0) may be, seconds."""
        return min(self.longest_seconds, self.first_seconds * 2.0 ** min(attempt, _DOUBLINGS))

    def wait(self, attempt: int, draw: float, retry_after: float | None = None) -> float:
        """Returns how long to wait.

        Args:
            attempt: Failures so far, from 0.
            draw: Uniform in 0..1.
            retry_after: What the server asked for, seconds; it is waited out and spread, so that
                those who were sent away together do not come back together.
        """
        jittered = draw * self.cap(attempt)
        if retry_after is None:
            return jittered
        return max(jittered, retry_after * (1 + _SPREAD * draw))


def meaning(status: int | None) -> Meaning:
    """Says what an error answer means; ``None`` is no answer at all.

    A 401 is a refusal like the others: the token may be known again after the server was restored,
    which is why no refusal is asked about for the last time.
    """
    return "busy" if status is None or status in BUSY or status >= 500 else "refused"


def next_poll(
    interval: float,
    failures: int,
    means: Meaning,
    draw: float,
    retry_after: float | None = None,
) -> float:
    """Returns the pause after a poll that failed, seconds.

    A server that is away or busy is asked again soon, then ever later, at the latest at the
    interval that was agreed on. A refusal is never asked about sooner than at that interval, and
    ever later: a fleet whose requests are wrong must not become a flood.

    Args:
        interval: Between polls when all is well, seconds.
        failures: In a row, this one included.
        means: What the failure was.
        draw: Uniform in 0..1.
        retry_after: What the server asked for, seconds.
    """
    attempt = max(0, failures - 1)
    if means == "busy":
        backoff = Backoff(first_seconds=2.0, longest_seconds=max(60.0, interval))
        return backoff.wait(attempt, draw, retry_after)
    longest = max(interval, _REFUSED_LIMIT_SECONDS)
    cap = Backoff(first_seconds=interval, longest_seconds=longest).cap(attempt)
    return max(interval * (1 + _SPREAD * draw), draw * cap, retry_after or 0.0)


def retry_after_seconds(text: str, date: str, now: float) -> float | None:
    """Reads a Retry-After header (RFC 9110, section 10.2.3): seconds, or a date.

    Args:
        text: Of the header; empty if there is none.
        date: The answer's own Date header: a date is a span from it, whatever this board's clock
            says. Empty if there is none.
        now: Unix seconds, for answers without a date.

    Returns:
        Seconds in 0..``RETRY_AFTER_LIMIT_SECONDS``, or ``None`` for none or nonsense.
    """
    text = text.strip()
    if text.isascii() and text.isdigit():
        seconds = float(text[:12])
    else:
        until, since = _timestamp(text), _timestamp(date)
        if until is None:
            return None
        seconds = until - (now if since is None else since)
    return min(max(0.0, seconds), RETRY_AFTER_LIMIT_SECONDS)


def _timestamp(date: str) -> float | None:
    try:
        return parsedate_to_datetime(date).timestamp()
    except (ValueError, TypeError, OverflowError):
        return None
