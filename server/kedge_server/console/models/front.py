"""Accuracy against frame time of a model's builds for one class, as a drawing. Pure."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from statistics import quantiles

from kedge_server.console.models.builds import Build
from kedge_server.console.models.labels import Label, place
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
        said: What else there is to say of it.
    """

    name: str
    across: float
    up: float
    solid: bool = True
    ring: bool = False
    label: str = ""
    said: str = ""


@dataclass(frozen=True)
class Point:
    """A dot in the drawing.

    Attributes:
        dot: It.
        best: No other that can be had is both as fast and as accurate.
        x: Where it is drawn.
        y: The same.
        outside: It is further off than the axes reach, and drawn at their end.
        label: Stands beside it, if anything does.
    """

    dot: Dot
    best: bool
    x: float
    y: float
    outside: bool = False
    label: Label | None = None


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

    @property
    def outside(self) -> tuple[Point, ...]:
        """Those that are further off than the axes reach."""
        return tuple(each for each in self.points if each.outside)

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
    across = ticks(reached(dots, lambda each: each.across))
    up = ticks(reached(dots, lambda each: each.up))
    points, most = list[Point](), -math.inf
    for each in sorted(dots, key=lambda each: (each.across, -each.up)):
        best = each.solid and each.up > most
        points.append(_point(each, best, across, up))
        most = max(most, each.up) if best else most
    named = [each for each in points
             if each.dot.label or (name_best and (each.best or len(dots) <= _FEW))]  # fmt: skip
    return replace(
        titles, points=_labelled(points, named), across=_ticks_at(across, Front.left, Front.right),
        line=_stairs([each for each in points if each.best]),
        up=_ticks_at(up, Front.bottom, Front.top),
    )  # fmt: skip


def _point(dot: Dot, best: bool, across: Sequence[float], up: Sequence[float]) -> Point:
    seen = (_within(dot.across, across), _within(dot.up, up))
    return Point(
        dot, best, _place(seen[0], across, Front.left, Front.right),
        _place(seen[1], up, Front.bottom, Front.top), outside=seen != (dot.across, dot.up),
    )  # fmt: skip


def _labelled(points: Sequence[Point], named: Sequence[Point]) -> tuple[Point, ...]:
    """Returns points with their names; the chosen one's is placed first."""
    order = sorted(named, key=lambda each: not each.dot.ring)
    labels = place(
        [(each.x, each.y, each.dot.label or each.dot.name) for each in order],
        [(each.x, each.y) for each in points],
        (Front.left, Front.top - 14, Front.right, Front.bottom),
    )  # fmt: skip
    held = dict(zip(map(id, order), labels, strict=True))
    return tuple(replace(each, label=held.get(id(each))) for each in points)


def reached(dots: Sequence[Dot], figure: Callable[[Dot], float]) -> list[float]:
    """Returns the values that an axis reaches: what lies far off must not squeeze the others.

    Far is over one and a half times the span of the middle half from that half (Tukey,
    Exploratory Data Analysis, 1977), as long as leaving it out widens the others thrice. The chosen
    one is always reached.
    """
    values = sorted(figure(each) for each in dots)
    if len(values) <= _FEW:
        return values
    low, _, high = quantiles(values, n=4)
    fence = 1.5 * (high - low)
    kept = [figure(each) for each in dots
            if each.ring or low - fence <= figure(each) <= high + fence]  # fmt: skip
    span = max(kept) - min(kept)
    return kept if 0 < span < (values[-1] - values[0]) / 3 else values


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


def _within(value: float, scale: Sequence[float]) -> float:
    return min(max(value, scale[0]), scale[-1])


def _place(value: float, scale: Sequence[float], begin: float, end: float) -> float:
    share = (value - scale[0]) / (scale[-1] - scale[0])
    return round(begin + share * (end - begin), 2)


def _ticks_at(scale: Sequence[float], begin: float, end: float) -> tuple[Tick, ...]:
    digits = max(0, -math.floor(math.log10(scale[1] - scale[0]) + 1e-9))
    return tuple(Tick(_place(each, scale, begin, end), f"{each:.{digits}f}") for each in scale)


def _stairs(best: Sequence[Point]) -> str:
    """Returns a path: between two builds only what the faster one reaches can be had."""
    if not best:
        return ""
    steps = [f"M{best[0].x} {best[0].y}"]
    steps += [f"H{each.x}V{each.y}" for each in best[1:]]
    return "".join(steps)
