"""Accuracy against frame time of a model's builds for one class, as a drawing. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from kedge_server.console.models.builds import Build
from kedge_server.releases.figures import ACCURACY, LATENCY

WIDE, HIGH = 640.0, 330.0
_LEFT, _RIGHT, _TOP, _BOTTOM = 62.0, 24.0, 34.0, 46.0
_TICKS = 5
#: So few can all be named.
_FEW = 8


@dataclass(frozen=True)
class Dot:
    """Something that was measured.

    Attributes:
        name: What it is.
        across: Milliseconds.
        up: mAP 50–95.
        solid: It can be had; a hollow one was taken back, or is over a budget.
        ring: It is the one that was chosen.
        label: Stands beside it; empty for none.
        below: The label stands under it: clear of the line through the best ones.
        said: What else there is to say of it.
    """

    name: str
    across: float
    up: float
    solid: bool = True
    ring: bool = False
    label: str = ""
    below: bool = False
    said: str = ""


@dataclass(frozen=True)
class Point:
    """A dot in the drawing.

    Attributes:
        dot: It.
        best: No other that can be had is both as fast and as accurate.
        label: Stands beside it; empty for none.
        x: Where it is drawn.
        y: The same.
    """

    dot: Dot
    best: bool
    label: str
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
        id: Unique in the page.
        title: What it shows.
        across_title: Of the axis.
        up_title: The same.
        points: In the order of frame time.
        line: Path through the best ones: what can be had at which frame time.
        across: Ticks of frame time.
        up: Ticks of accuracy.
        unmeasured: Builds without both figures.
    """

    id: str = "front"
    title: str = ""
    across_title: str = ""
    up_title: str = ""
    points: tuple[Point, ...] = ()
    line: str = ""
    across: tuple[Tick, ...] = ()
    up: tuple[Tick, ...] = ()
    unmeasured: int = 0

    left = _LEFT
    right = WIDE - _RIGHT
    top = _TOP
    bottom = HIGH - _BOTTOM
    wide = WIDE
    high = HIGH


def draw(builds: Iterable[Build], device_class: str) -> Front:
    """Lays the builds of one class out."""
    every = list(builds)
    dots = [
        Dot(each.manifest.release, each.figures[LATENCY], each.figures[ACCURACY],
            solid=each.listed, said="" if each.listed else "taken back")
        for each in every
        if LATENCY in each.figures and ACCURACY in each.figures
    ]  # fmt: skip
    return lay_out(
        dots, "builds", title=f"Accuracy against frame time for {device_class}",
        across_title="frame time p95, ms →", up_title="↑ mAP 50–95",
        unmeasured=len(every) - len(dots), name_best=True,
    )  # fmt: skip


def lay_out(
    dots: Sequence[Dot], name: str, *, title: str, across_title: str, up_title: str,
    unmeasured: int = 0, name_best: bool = False,
) -> Front:  # fmt: skip
    """Lays dots out.

    Args:
        dots: In any order.
        name: Unique in the page.
        title: What it shows.
        across_title: Of the axis.
        up_title: The same.
        unmeasured: Of which there is no dot.
        name_best: Write the names of the best ones, and of all where there are few.
    """
    titles = Front(name, title, across_title, up_title, unmeasured=unmeasured)
    if not dots:
        return titles
    ordered = sorted(dots, key=lambda each: (each.across, -each.up))
    across, up = ticks([each.across for each in dots]), ticks([each.up for each in dots])
    points, most = [], -math.inf
    for each in ordered:
        best = each.solid and each.up > most
        named = name_best and (best or len(dots) <= _FEW)
        label = each.name if named else each.label
        points.append(
            Point(each, best, label, _place(each.across, across, Front.left, Front.right),
                  _place(each.up, up, Front.bottom, Front.top))
        )  # fmt: skip
        most = max(most, each.up) if best else most
    return replace(
        titles, points=tuple(points), line=_stairs([each for each in points if each.best]),
        across=_ticks_at(across, Front.left, Front.right),
        up=_ticks_at(up, Front.bottom, Front.top),
    )  # fmt: skip


def ticks(values: Sequence[float]) -> list[float]:
    """Returns round numbers around values, from below the least to above the largest."""
    low, high = min(values), max(values)
    span = (high - low) or abs(high) * 0.2 or 1.0
    step = 10 ** math.floor(math.log10(span / _TICKS))
    step *= next(each for each in (1, 2, 5, 10) if span / (step * each) <= _TICKS)
    first, last = math.floor(low / step - 0.2), math.ceil(high / step + 0.2)
    if low >= 0:
        first = max(first, 0)  # nothing that is measured here is negative
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
