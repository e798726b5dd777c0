"""Maintenance windows: when a board may be worked on, by its own clock on the wall. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from msgspec import Meta

Day = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
DAYS: tuple[Day, ...] = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
Clock = Annotated[str, Meta(pattern=r"^([01]\d|2[0-3]):[0-5]\d$")]
_DAY_MINUTES = 24 * 60


@dataclass(frozen=True, kw_only=True)
class WindowSpec:
    """When a board may be worked on.

    Attributes:
        begins: Local time, HH:MM.
        ends: Local time, HH:MM; not after ``begins`` is the next day.
        days: On which it begins.
        holds: ``swap`` holds trial and swap back, files are fetched at any time; ``download``
            holds the files back too.
    """

    begins: Clock
    ends: Clock
    days: tuple[Day, ...] = DAYS
    holds: Literal["swap", "download"] = "swap"


def longest_shut(window: WindowSpec) -> float | None:
    """Returns for how long a window is shut at the most, seconds; ``None`` if it never opens.

    Changes to and from summer time are left out: they make it an hour longer or shorter.
    """
    begins, ends = _minutes(window.begins), _minutes(window.ends)
    length = (ends - begins) % _DAY_MINUTES or _DAY_MINUTES
    starts = sorted({DAYS.index(each) * _DAY_MINUTES + begins for each in window.days})
    if not starts:
        return None
    following = [*starts[1:], starts[0] + 7 * _DAY_MINUTES]
    gaps = [after - start - length for start, after in zip(starts, following, strict=True)]
    return max(0, *gaps) * 60.0


def _minutes(clock: str) -> int:
    hours, _, minutes = clock.partition(":")
    return int(hours) * 60 + int(minutes)
