"""What holds a board back: a slow model and a hot board must be told apart."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from kedge_agent.sensors.files import found, number, text

#: Cooling by making slower; a fan is cooling too and holds nothing back.
_SLOWS = ("cpufreq", "processor", "devfreq", "gpu", "cpu", "intel_powerclamp", "npu")
#: Raspberry Pi firmware, ``get_throttled``: the lower bits are now, the upper ever.
_PI_BITS = {0: "under-voltage", 1: "ARM frequency capped", 2: "throttled", 3: "soft limit"}
_PI = "sys/devices/platform/soc/soc:firmware/get_throttled"


@dataclass(frozen=True)
class Throttling:
    """One look.

    Attributes:
        now: What holds the board back at this moment.
        events: Counters that only grow; more than at the last look is: it was held back between.
        measured: There is anything on this board that would tell.
    """

    now: tuple[str, ...] = ()
    events: Mapping[str, int] = field(default_factory=dict)
    measured: bool = False


def look(root: Path) -> Throttling:
    """Reads everything that would tell."""
    cooling, has_cooling = _cooling(root)
    firmware, has_firmware = _firmware(root)
    events = _events(root)
    measured = has_cooling or has_firmware or bool(events)
    return Throttling((*cooling, *firmware), events, measured)


def between(before: Throttling | None, after: Throttling) -> tuple[str, ...] | None:
    """Says what held the board back between two looks, in words; ``None`` is: not measured."""
    if not after.measured:
        return None
    earlier = before.events if before is not None else after.events
    grown = [
        f"{name}: {count - earlier.get(name, count)} times"
        for name, count in sorted(after.events.items())
        if count > earlier.get(name, count)
    ]
    return (*after.now, *grown)


def _cooling(root: Path) -> tuple[list[str], bool]:
    words, seen = [], False
    for device in found(root, "sys/class/thermal/cooling_device*"):
        kind, state = text(device / "type"), number(device / "cur_state")
        if state is None or not any(each in kind.lower() for each in _SLOWS):
            continue
        seen = True
        if state > 0:
            most = number(device / "max_state")
            words.append(f"{kind}: slowed to step {state} of {most}")
    return words, seen


def _firmware(root: Path) -> tuple[list[str], bool]:
    said = text(root / _PI).removeprefix("0x")
    try:
        bits = int(said, 16)
    except ValueError:
        return [], False
    return [f"firmware: {word}" for bit, word in _PI_BITS.items() if bits >> bit & 1], True


def _events(root: Path) -> dict[str, int]:
    counters = {}
    # x86: Linux, Documentation/admin-guide/... thermal_throttle. Package counters stand at each
    # core of a package; the first core's are enough for each package.
    cores = "sys/devices/system/cpu/cpu[0-9]*/thermal_throttle/core_throttle_count"
    counters["CPU thermal throttling"] = _sum(root, cores)
    # Jetson: over-current and thermal alarms of the SoC (NVIDIA Jetson Linux Developer Guide).
    counters["SoC over-current"] = _sum(root, "sys/class/hwmon/hwmon*/oc*_event_cnt")
    return {name: count for name, count in counters.items() if count is not None}


def _sum(root: Path, pattern: str) -> int | None:
    counts = [each for each in map(number, found(root, pattern)) if each is not None]
    return sum(counts) if counts else None
