"""The picture of a search: accuracy against frame time, as inline SVG. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from kedge_builder.report.svg import Scale, render, ticks

_WIDTH, _HEIGHT = 760, 440
_LEFT, _RIGHT, _TOP, _BOTTOM = 56, 744, 34, 366
_ROOM = 0.08
_LEGEND = (("on", "on the front"), ("off", "keeps every budget"), ("over", "over a budget"))
_TEXT_WIDTH = 6.6


@dataclass(frozen=True)
class _Mark:
    x: float
    y: float
    kind: str
    said: str


@dataclass(frozen=True)
class _Named:
    x: float
    y: float
    ring: bool
    text: str
    text_x: float
    text_y: float
    anchor: str


def front_svg(search: Mapping[str, Any], *, id: str = "front") -> Markup:
    """Draws the ``search`` part of ``report.json``.

    Points over a budget are crosses, the front is joined, the pick has a ring and the baseline a
    diamond. The least accuracy allowed is a line. The budget of frame time is one of the 95th
    percentile and the axis shows medians, so no line stands for it: crosses do.

    Args:
        search: As :func:`kedge_builder.search.record.section` writes it.
        id: Unique in the page.

    Returns:
        An ``<svg>`` element without script; every label is escaped.

    Raises:
        ValueError: Nothing was measured.
    """
    rows = [each for each in search["trials"] if each["measured"]]
    if not rows:
        raise ValueError("a search without a measured point has no picture")
    least = _least_accuracy(search, rows)
    across = Scale.around([_latency(e) for e in rows], _LEFT, _RIGHT, _ROOM, least=0.0)
    shown = [_accuracy(e) for e in rows] + [value for value, _ in least]
    up = Scale.around(shown, _BOTTOM, _TOP, _ROOM)
    return render(
        "front.svg.j2", id=id, width=_WIDTH, height=_HEIGHT,
        left=_LEFT, right=_RIGHT, top=_TOP, bottom=_BOTTOM,
        title=f"Accuracy against frame time of {len(rows)} measured points",
        desc=search["reason"],
        x_label="frame time, median, ms", y_label="mAP50-95 on the select images", whiskers=[],
        x_ticks=[(across(value), text) for value, text in ticks(across.low, across.high, 8)],
        y_ticks=[(up(value), text) for value, text in ticks(up.low, up.high, 6)],
        floors=[(up(value), text) for value, text in least],
        front=_front(rows, across, up),
        marks=[_mark(each, across, up) for each in rows],
        named=_named(search, rows, across, up),
        legend=[{"x": _LEFT + 4 + 170 * at, "kind": kind, "text": text}
                for at, (kind, text) in enumerate(_LEGEND)],
    )  # fmt: skip


def _latency(row: Mapping[str, Any]) -> float:
    return float(row["measured"]["latency_p50_ms"])


def _accuracy(row: Mapping[str, Any]) -> float:
    return float(row["measured"]["map50_95"])


def _least_accuracy(
    search: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]
) -> list[tuple[float, str]]:
    """Returns the lines of the allowed drop and of the floor, (mAP, text)."""
    limits, lines = search["limits"], []
    base = [_accuracy(each) for each in rows if each["key"] == search["baseline"]]
    if base and limits.get("accuracy_drop") is not None:
        allowed = float(limits["accuracy_drop"])
        lines.append((base[0] - allowed, f"allowed drop, {allowed * 100:.2f} points"))
    if limits.get("floor") is not None:
        lines.append((float(limits["floor"]), "floor"))
    return lines


def _front(rows: Sequence[Mapping[str, Any]], across: Scale, up: Scale) -> str:
    """Joins what is best in these two figures; the front itself counts size as well."""
    best: list[Mapping[str, Any]] = []
    for each in sorted((r for r in rows if r["front"]), key=lambda r: (_latency(r), -_accuracy(r))):
        if not best or _accuracy(each) > _accuracy(best[-1]):
            best.append(each)
    return " ".join(f"{across(_latency(e))},{up(_accuracy(e))}" for e in best)


def _mark(row: Mapping[str, Any], across: Scale, up: Scale) -> _Mark:
    figures = row["measured"]
    kind = "on" if row["front"] else "off" if row["feasible"] else "over"
    said = (
        f"{row['title']}: {figures['latency_p50_ms']:.1f} ms, mAP50-95 {figures['map50_95']:.4f}, "
        f"{figures['size_bytes'] / 2**20:.1f} MiB"
    )
    if row["why"]:
        said = f"{said}; {row['why']}"
    return _Mark(across(_latency(row)), up(_accuracy(row)), kind, said)


def _named(
    search: Mapping[str, Any], rows: Sequence[Mapping[str, Any]], across: Scale, up: Scale
) -> list[_Named]:
    found = []
    for key, ring, word in ((search["baseline"], False, "baseline"), (search["picked"], True, "")):
        for each in rows:
            if each["key"] == key:
                text = f"picked: {each['title']}" if ring else word
                x, y = across(_latency(each)), up(_accuracy(each))
                fits = x + 14 + len(text) * _TEXT_WIDTH < _RIGHT
                text_x, anchor = (x + 14, "start") if fits else (x - 14, "end")
                # Above and below, so that both stay legible where the baseline is the pick.
                text_y = y + 20 if ring else y - 12
                found.append(_Named(x, y, ring, text, text_x, text_y, anchor))
    return found
