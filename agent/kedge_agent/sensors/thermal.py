"""Temperatures, from thermal zones and hwmon (Linux, Documentation/ABI/testing/sysfs-class-*)."""

from __future__ import annotations

from pathlib import Path

from kedge_agent.sensors.files import found, number, text

#: Sensors that are off report absurd values (Jetson: -256 °C for a sleeping GPU), degrees Celsius.
_LOWEST, _HIGHEST = -60.0, 200.0
_MOST = 64


def temperatures(root: Path) -> dict[str, float]:
    """Returns sensor → degrees Celsius.

    Args:
        root: Of the file system, ``/`` on a board.
    """
    named = [*_zones(root), *_hwmon(root)]
    result: dict[str, float] = {}
    for name, millidegrees in named:
        degrees = None if millidegrees is None else millidegrees / 1000
        if degrees is None or not _LOWEST < degrees < _HIGHEST or len(result) == _MOST:
            continue
        unique, at = name, 2
        while unique in result:
            unique, at = f"{name}-{at}", at + 1
        result[unique] = degrees
    return result


def _zones(root: Path) -> list[tuple[str, int | None]]:
    return [
        (text(each / "type") or each.name, number(each / "temp"))
        for each in found(root, "sys/class/thermal/thermal_zone*")
    ]


def _hwmon(root: Path) -> list[tuple[str, int | None]]:
    readings = []
    for chip in found(root, "sys/class/hwmon/hwmon*"):
        name = text(chip / "name") or chip.name
        for path in found(chip, "temp*_input"):
            label = text(chip / path.name.replace("_input", "_label"))
            readings.append((f"{name} {label}".strip(), number(path)))
    return readings
