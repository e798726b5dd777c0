"""How the fleet, its telemetry and its roles are shown."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence

from kedge_server.operator.show import print_json, print_table, say, span, whole
from kedge_server.operator.trust_view import RoleView
from kedge_shared.fleet import ClassHealth, FleetInfo
from kedge_shared.phases import BACK
from kedge_shared.telemetry import TelemetryInfo

#: A role that a person must sign anew: time to bring the keys out.
_OFFLINE_SOON_SECONDS = 14 * 86400
_BACK = tuple(sorted(each.value for each in BACK))


def needs(found: FleetInfo, now: float) -> list[str]:
    """Returns what a person must see to, in words."""
    said = [found.alarm] if found.alarm else []
    for role, expires in sorted(found.expires.items(), key=lambda each: each[1]):
        if expires <= now:
            said.append(f"{role} has expired: boards accept nothing new")
        elif role not in {"snapshot", "timestamp"} and expires - now < _OFFLINE_SOON_SECONDS:
            said.append(f"{role} expires in {_left(expires - now)}: sign it anew")
    if found.pending:
        said.append(f"{_boards(found.pending)} for approval (`kedge device pending`)")
    clones = sum(each.suspected_clones for each in found.classes)
    if clones:
        said.append(f"{clones} suspected of being clones (`kedge device list`)")
    return said


def _boards(count: int) -> str:
    return "1 board waits" if count == 1 else f"{count} boards wait"


def health(found: FleetInfo, *, as_json: bool) -> None:
    """Shows how the fleet is."""
    if as_json:
        return print_json(found)
    rows = [_class(each) for each in found.classes]
    columns = (whole("class"), "boards", "1 day", "silent", "at work", "behind", "back", "runs")
    quiet = span(found.silent_seconds)
    title = (f"Fleet: boards by class, heard of within a day, silent for {quiet}, at work on a "
             "release, behind their assignment, back on the older release")  # fmt: skip
    print_table(title, columns, rows, "No board yet: `kedge device token`.")
    for line in _lines(found, time.time()):
        say(line)
    return None


def _class(found: ClassHealth) -> tuple[str, ...]:
    back = sum(found.phases.get(each, 0) for each in _BACK)
    runs = {name or "nothing yet": count for name, count in found.releases.items()}
    numbers = (found.devices, found.seen_1d, found.silent, found.at_work, found.behind, back)
    return (found.device_class, *map(str, numbers), _counts(runs))


def _counts(counts: Mapping[str, int]) -> str:
    ordered = sorted(counts.items(), key=lambda each: -each[1])
    return ", ".join(f"{count} {name}" for name, count in ordered)


def _lines(found: FleetInfo, now: float) -> Iterator[str]:
    if found.revoked or found.measuring:
        yield f"besides: {found.revoked} revoked, {found.measuring} that only measure"
    yield f"rollouts: {_counts(found.rollouts) or 'none yet'}"
    soonest = sorted(found.expires.items(), key=lambda each: each[1])
    left = ", ".join(f"{role} {_left(expires - now)}" for role, expires in soonest)
    yield f"metadata holds for: {left}"
    wanted = needs(found, now)
    yield "nothing to see to" if not wanted else f"to be seen to: {'; '.join(wanted)}"


def _left(seconds: float) -> str:
    return span(seconds) if seconds > 0 else "no longer"


def telemetry(found: Sequence[TelemetryInfo], *, as_json: bool) -> None:
    """Shows what boards measured."""
    if as_json:
        return print_json(found)
    rows = [
        (time.strftime("%m-%d %H:%M", time.gmtime(each.start)), each.device_class,
         each.release or "none", f"{each.frames:,}", f"{each.dropped:,}", f"{each.errors:,}",
         _ms(each.p50_ms), _ms(each.p95_ms), _ms(each.p99_ms))
        for each in found
    ]  # fmt: skip
    columns = ("from (UTC)", "class", "release", "frames", "dropped", "errors", "p50 ms", "p95 ms",
               "p99 ms")  # fmt: skip
    return print_table("Telemetry", columns, rows, "No board has measured anything in this time.")


def _ms(value: float | None) -> str:
    return "" if value is None else f"{value:.1f}"


def trust(found: Sequence[RoleView], *, as_json: bool) -> None:
    """Shows who signs what."""
    if as_json:
        return print_json(found)
    rows = [
        (each.role, str(each.version), each.expires.replace("T", " ").rstrip("Z"),
         f"{each.threshold} of {len(each.keys)}", " ".join(key[:12] for key in each.keys))
        for each in found
    ]  # fmt: skip
    columns = ("role", "version", "until (UTC)", "sign", "keys")
    return print_table("Trust, as the server tells it", columns, rows, "No role.")
