"""Accuracy against size of everything that was measured on the select images. Pure.

The picture of a build without a search: its candidates are not timed one by one, so frame time is
no axis. Size is known of each.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from kedge_builder.report.svg import Scale, render, ticks

_WIDTH, _HEIGHT = 760, 400
_LEFT, _RIGHT, _TOP, _BOTTOM = 56, 744, 34, 326
_ROOM = 0.08
_HALF = "float16"
_TEXT_WIDTH = 6.6


def tradeoff_svg(contents: Mapping[str, Any], *, id: str = "tradeoff") -> Markup:
    """Draws float, every candidate, and a ring around the built one with its 95 % interval.

    Args:
        contents: Of ``report.json``.
        id: Unique in the page.
    """
    rows = contents["calibration"]["candidates"]
    chosen, size = contents["calibration"]["chosen"], contents["float"]["size_bytes"]
    base = rows[0]["select_map50_95"] + rows[0]["drop"]
    taken = next((each for each in rows if each["taken"]), None)
    ends = [base - taken["drop_high"], base - taken["drop_low"]] if taken else []
    across = Scale.around([_mib(size), *(_mib(e["bytes"]) for e in rows)], _LEFT, _RIGHT, _ROOM, 0)
    up = Scale.around([base, *ends, *(e["select_map50_95"] for e in rows)], _BOTTOM, _TOP, _ROOM)
    plain = "FP16" if contents["precision"]["form"] == _HALF else "INT8"
    named = [_named(across(_mib(size)), up(base), ring=False, text="float")]
    whiskers = []
    if taken:
        x, y = across(_mib(taken["bytes"])), up(taken["select_map50_95"])
        named.append(_named(x, y, ring=True, text=f"built: {chosen}"))
        whiskers.append({"x": x, "low": up(ends[0]), "high": up(ends[1])})
    return render(
        "front.svg.j2", id=id, width=_WIDTH, height=_HEIGHT,
        left=_LEFT, right=_RIGHT, top=_TOP, bottom=_BOTTOM,
        title=f"Accuracy against size of float and {len(rows)} candidates",
        desc=f"taken: {chosen}, {contents['calibration']['why']}",
        x_label="size, MiB", y_label="mAP50-95 on the select images",
        x_ticks=[(across(value), text) for value, text in ticks(across.low, across.high, 8)],
        y_ticks=[(up(value), text) for value, text in ticks(up.low, up.high, 6)],
        floors=[], front="", whiskers=whiskers, named=named,
        marks=_marks(rows, across, up),
        legend=[{"x": _LEFT + 4 + 170 * at, "kind": kind, "text": text}
                for at, (kind, text) in enumerate((("on", plain), ("off", "with float parts")))],
    )  # fmt: skip


def _marks(rows: Sequence[Mapping[str, Any]], across: Scale, up: Scale) -> list[dict[str, Any]]:
    return [
        {
            "x": across(_mib(each["bytes"])),
            "y": up(each["select_map50_95"]),
            "kind": "off" if "float" in each["name"] and each["name"] != _HALF else "on",
            "said": f"{each['name']}: {_mib(each['bytes']):.2f} MiB, "
            f"mAP50-95 {each['select_map50_95']:.4f}",
        }
        for each in rows
    ]


def _named(x: float, y: float, *, ring: bool, text: str) -> dict[str, Any]:
    fits = x + 14 + len(text) * _TEXT_WIDTH < _RIGHT
    side = 14 if fits else -14
    return {"x": x, "y": y, "ring": ring, "text": text, "text_x": x + side,
            "text_y": y + 20 if ring else y - 12, "anchor": "start" if fits else "end"}  # fmt: skip


def _mib(size: float) -> float:
    return size / 2**20
