"""What time it is, on boards whose clock may be anything: values and a bound, no I/O.

A board without a battery wakes up in 1970, one with a broken time service may be years ahead. A
time is *proven* by what was signed at it: an assignment, or the image repository's timestamp. The
clock itself proves nothing, so a jump ahead passes without a trace once the clock is right again.
"""

from __future__ import annotations

from datetime import datetime, timezone

#: Nobody runs this before it was written; raised with each release.
WRITTEN = int(datetime(2026, 11, 1, tzinfo=timezone.utc).timestamp())

#: Clocks that are kept right differ by less, and the server's versions may run ahead by seconds: a
#: board that is so little behind what was proven goes by its clock.
SKEW_SECONDS = 900


def lower_bound(proven: int) -> int:
    """Returns a time that is past for certain, Unix seconds.

    Args:
        proven: Latest time that a signature proved to this board, Unix seconds.
    """
    return max(WRITTEN, proven)


def trusted_now(clock: float, proven: int) -> int:
    """Returns the time by which expiry is judged, Unix seconds: never below what is past.

    Args:
        clock: Of this board, Unix seconds.
        proven: Latest time that a signature proved to this board.
    """
    return max(int(clock), lower_bound(proven))


def is_behind(clock: float, proven: int) -> bool:
    """Says whether the clock shows a time that is past for certain, by more than clocks differ."""
    return clock < lower_bound(proven) - SKEW_SECONDS
