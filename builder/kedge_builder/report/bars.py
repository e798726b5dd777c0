"""Bars: the drop of every class, and histograms of what calibration covers. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from markupsafe import Markup

from kedge_builder.report.svg import render

_WIDTH = 760
_ROW, _LABEL, _VALUE = 22, 150, 70
_LETTERS = 22
_GROUP_TOP, _GROUP_HEIGHT = 12, 150
_SERIES = 3
_BIN_LABEL = 34


def drops_svg(drops: Mapping[str, float], *, title: str, id: str = "drops") -> Markup:
    """Draws one bar a class, the worst first; losses go right in red, gains left.

    Args:
        drops: Class → loss of mAP50-95, fraction.
        title: Of the picture.
        id: Unique in the page.
    """
    rows = sorted(drops.items(), key=lambda each: (-each[1], each[0]))
    most = max([0.001, *(abs(value) for value in drops.values())])
    low, high = min([0.0, *drops.values()]), max([0.0, *drops.values()])
    span = (high - low) or most
    room = _WIDTH - _LABEL - 2 * _VALUE
    zero = _LABEL + _VALUE + room * (-low / span)
    bars, texts = [], []
    for at, (name, value) in enumerate(rows):
        y, length = at * _ROW + 4, abs(value) / span * room
        start = zero if value >= 0 else zero - length
        said = f"{value * 100:+.2f}"
        bars.append({"kind": "bad" if value > 0 else "s0", "x": round(start, 1), "y": y,
                     "width": round(length, 1), "height": _ROW - 8,
                     "said": f"{name}: {said} points"})  # fmt: skip
        end = start + length + 6 if value >= 0 else start - 6
        texts += [
            {"x": _LABEL - 6, "y": y + 11, "anchor": "end", "text": _short(name)},
            {"x": round(end, 1), "y": y + 11, "anchor": "start" if value >= 0 else "end",
             "text": said},
        ]  # fmt: skip
    height = len(rows) * _ROW + 4
    worst = f"worst: {rows[0][0]}, {rows[0][1] * 100:+.2f} points" if rows else "no classes"
    return render(
        "bars.svg.j2", id=id, width=_WIDTH, height=height, title=title, desc=worst, bars=bars,
        texts=texts, legend=[], axis=f"M{round(zero, 1)} 0V{height}",
    )  # fmt: skip


def histogram_svg(
    bins: Sequence[str],
    series: Mapping[str, Sequence[float]],
    *,
    title: str,
    id: str,
    width: int = _WIDTH,
) -> Markup:
    """Draws shares of each series, side by side, so that unequal sets can be compared.

    Args:
        bins: Labels.
        series: Name → count or share a bin; three at most, for example pool, chosen, evaluation.
        title: Of the picture.
        id: Unique in the page.
        width: Pixels; labels that would touch are left out.

    Raises:
        ValueError: More than three series, no bins, or a series of another length.
    """
    if not bins or len(series) > _SERIES or any(len(each) != len(bins) for each in series.values()):
        raise ValueError("give bins, and up to three series as long as they are")
    shares = {
        name: [count / (sum(counts) or 1) for count in counts] for name, counts in series.items()
    }
    highest = max([1e-9, *(share for each in shares.values() for share in each)])
    group = (width - 8) / len(bins)
    thick, bottom = group * 0.8 / len(series), _GROUP_TOP + _GROUP_HEIGHT
    every = -(-_BIN_LABEL // group)
    bars = []
    for at, (name, values) in enumerate(shares.items()):
        for place, share in enumerate(values):
            length = share / highest * _GROUP_HEIGHT
            bars.append({"kind": f"s{at}", "x": round(4 + (place + 0.1) * group + at * thick, 1),
                         "y": round(bottom - length, 1), "width": round(thick, 1),
                         "height": round(length, 1),
                         "said": f"{name}, {bins[place]}: {share * 100:.0f} %"})  # fmt: skip
    texts = [
        {"x": round(4 + (at + 0.5) * group, 1), "y": bottom + 16, "anchor": "middle", "text": text}
        for at, text in enumerate(bins)
        if at % every == 0
    ]
    legend = [{"kind": f"s{at}", "x": 8 + at * 130, "text": name} for at, name in enumerate(series)]
    return render(
        "bars.svg.j2", id=id, width=width, height=bottom + 44, title=title,
        desc=f"{', '.join(series)}: shares of {len(bins)} bins", bars=bars, texts=texts,
        legend=legend, axis=f"M0 {bottom}H{width}",
    )  # fmt: skip


def _short(name: str) -> str:
    return name if len(name) <= _LETTERS else f"{name[: _LETTERS - 1]}…"
