"""The maintenance window: when an engine may be swapped, in the board's own time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta, timezone, tzinfo
from pathlib import Path

from kedge_agent.clock import SKEW_SECONDS
from kedge_shared.errors import InputError
from kedge_shared.windows import DAYS, WindowSpec

_LOCALTIME = Path("/etc/localtime")
#: A window on one day of the week is found within a week from yesterday.
_AHEAD_DAYS = 9


@dataclass(frozen=True, kw_only=True)
class WindowSettings(WindowSpec):
    """When this board may be worked on, whatever a rollout says.

    Attributes:
        zone: Name in the tz database; empty is the system's zone.
    """

    zone: str = ""


@dataclass(frozen=True)
class Opening:
    """Where a window stands.

    Attributes:
        open: Now.
        until: When that changes; ``None`` where the window never opens or the clock is not set.
        reason: The sentence a person reads.
    """

    open: bool
    until: datetime | None
    reason: str


def window_open(window: WindowSpec, now: float, earliest: float, zone: tzinfo) -> Opening:
    """Says whether a window is open, and until when that holds. Pure.

    It opens once for each of its days, at the moment at which the local clock shows ``begins``
    for the first time, and closes when it first shows ``ends`` after that. Where a change to
    summer time skips one of them, the moment is as much later as the clock was put forward
    (PEP 495, fold 0): a window that lies in the skipped hour opens all the same.

    Args:
        window: The setting, or a rollout's.
        now: Unix seconds by this board's clock.
        earliest: A time that is past for certain, Unix seconds.
        zone: Of the board.
    """
    if now < earliest - SKEW_SECONDS:
        told = f"{datetime.fromtimestamp(max(0.0, now), timezone.utc):%Y-%m-%d}"
        said = f"the clock says {told}, so the maintenance window cannot be told; set the clock"
        return Opening(False, None, said)
    moment = datetime.fromtimestamp(now, timezone.utc)
    for begins, ends in _spans(window, moment.astimezone(zone).date(), zone):
        if moment < begins:
            said = f"waits for the maintenance window at {_said(begins, zone)}"
            return Opening(False, begins, said)
        if moment < ends:
            said = f"the maintenance window is open until {_said(ends, zone)}"
            return Opening(True, ends, said)
    return Opening(False, None, "the maintenance window names no day")


def _spans(window: WindowSpec, today: date, zone: tzinfo) -> Iterator[tuple[datetime, datetime]]:
    begins, ends = time.fromisoformat(window.begins), time.fromisoformat(window.ends)
    over = timedelta(days=0 if ends > begins else 1)
    for ahead in range(-1, _AHEAD_DAYS):
        day = today + timedelta(days=ahead)
        if DAYS[day.weekday()] in window.days:
            yield _moment(day, begins, zone), _moment(day + over, ends, zone)


def _moment(day: date, at: time, zone: tzinfo) -> datetime:
    return datetime.combine(day, at, zone).astimezone(timezone.utc)


def _said(moment: datetime, zone: tzinfo) -> str:
    return f"{moment.astimezone(zone):%a %H:%M %Z}"


def zone_of(window: WindowSettings | None, localtime: Path = _LOCALTIME) -> tzinfo:
    """Returns the zone a window is meant in; a rollout's is meant in the board's own.

    Raises:
        InputError: There is no such zone.
    """
    from zoneinfo import ZoneInfo

    if window is not None and window.zone:
        try:
            return ZoneInfo(window.zone)
        # A name with slashes may be a folder of the tz database, or lead out of it.
        except (OSError, ValueError, LookupError):
            raise InputError(
                f"maintenance.zone {window.zone!r} is not in this board's tz database",
                "write for example Europe/Berlin, or install tzdata",
            ) from None
    try:
        with localtime.open("rb") as file:
            return ZoneInfo.from_file(file, key=None)
    except (OSError, ValueError):
        return timezone.utc
