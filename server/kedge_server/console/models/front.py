"""Accuracy against frame time of a model's builds for one class, as a drawing. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from kedge_server.console.models.builds import ACCURACY, LATENCY, Build

WIDE, HIGH = 640.0, 330.0
_LEFT, _RIGHT, _TOP, _BOTTOM = 62.0, 24.0, 34.0, 46.0
_TICKS = 5


@dataclass(frozen=True)
class Point:
    """A build in the drawing.

    Attributes:
        release: Its release.
        latency: p95, milliseconds.
        accuracy: mAP 50–95.
        best: No other is both as fast and as accurate.
        listed: Its owners have not taken it back.
        x: Where it is drawn.
        y: The same.
    """

    release: str
    latency: float
    accuracy: float
    best: bool
    listed: bool
    x: float
    y: float


@dataclass(frozen=True)
class Tick:
    """A line of the grid: where, and what it says."""

    at: float
    said: str


@dataclass(frozen=True)
class Front:
    """The drawing.

    Attributes:
        points: In the order of frame time.
        line: Path through the best ones: what can be had at which frame time.
        across: Ticks of frame time.
        up: Ticks of accuracy.
        unmeasured: Builds without both figures.
    """

    points: tuple[Point, ...]
    line: str
    across: tuple[Tick, ...]
    up: tuple[Tick, ...]
    unmeasured: int

    left = _LEFT
    right = WIDE - _RIGHT
    top = _TOP
    bottom = HIGH - _BOTTOM
    wide = WIDE
    high = HIGH


def draw(builds: Iterable[Build]) -> Front:
    """Lays the builds of one class out."""
    all_of_them = list(builds)
    known = [
        (each.figures[LATENCY], each.figures[ACCURACY], each)
        for each in all_of_them
        if LATENCY in each.figures and ACCURACY in each.figures
    ]
    known.sort(key=lambda each: (each[0], -each[1]))
    if not known:
        return Front((), "", (), (), len(all_of_them))
    across = ticks([each[0] for each in known])
    up = ticks([each[1] for each in known])
    points, most = [], -math.inf
    for latency, accuracy, build in known:
        points.append(
            Point(build.manifest.release, latency, accuracy, accuracy > most, build.listed,
                  _place(latency, across, Front.left, Front.right),
                  _place(accuracy, up, Front.bottom, Front.top))
        )  # fmt: skip
        most = max(most, accuracy)
    return Front(
        tuple(points), _stairs([each for each in points if each.best]),
        _ticks_at(across, Front.left, Front.right), _ticks_at(up, Front.bottom, Front.top),
        len(all_of_them) - len(known),
    )  # fmt: skip


def ticks(values: Sequence[float]) -> list[float]:
    """Returns round numbers around values, from below the least to above the largest."""
    low, high = min(values), max(values)
    span = (high - low) or abs(high) * 0.2 or 1.0
    step = 10 ** math.floor(math.log10(span / _TICKS))
    step *= next(each for each in (1, 2, 5, 10) if span / (step * each) <= _TICKS)
    first, last = math.floor(low / step - 0.2), math.ceil(high / step + 0.2)
    return [step * each for each in range(first, last + 1)]


def _place(value: float, scale: Sequence[float], begin: float, end: float) -> float:
    share = (value - scale[0]) / (scale[-1] - scale[0])
    return round(begin + share * (end - begin), 2)


def _ticks_at(scale: Sequence[float], begin: float, end: float) -> tuple[Tick, ...]:
    return tuple(Tick(_place(each, scale, begin, end), f"{each:.4g}") for each in scale)


def _stairs(best: Sequence[Point]) -> str:
    """Returns a path: between two builds only what the faster one reaches can be had."""
    if not best:
        return ""
    steps = [f"M{best[0].x} {best[0].y}"]
    steps += [f"H{each.x}V{each.y}" for each in best[1:]]
    return "".join(steps)
