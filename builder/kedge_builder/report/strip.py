"""Precision over the depth of the network, as one strip. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any

from markupsafe import Markup

from kedge_builder.report.svg import render

_WIDTH, _CELLS, _LABELS = 760, 46, 18
#: Pixels that the name of a block needs; fewer leave it out.
_LABEL_ROOM = 62
_KINDS = {
    "int8": "INT8",
    "half": "FP16",
    "kept": "left float for accuracy",
    "zone": "float zone",
    "plain": "no INT8 form",
}

_LOWER = {"int8": "int8", "float16": "half"}


def strip_svg(precision: Mapping[str, Any], *, id: str = "strip") -> Markup:
    """Draws one cell a layer, input left, output right; neighbours of a kind are joined.

    Args:
        precision: Of ``report.json``.
        id: Unique in the page.
    """
    layers = precision["layers"]
    kinds = [kind_of(each, precision["float_blocks"]) for each in layers]
    width = _WIDTH / max(1, len(layers))
    bars, at = [], 0
    for kind, group in groupby(kinds):
        count = len(list(group))
        first, last = layers[at]["name"], layers[at + count - 1]["name"]
        span = first if count == 1 else f"{first} to {last}"
        bars.append(
            {
                "kind": kind, "x": round(at * width, 2), "y": 0, "height": _CELLS,
                "width": round(count * width, 2), "said": f"{_KINDS[kind]}: {span}",
            }
        )  # fmt: skip
        at += count
    return render(
        "strip.svg.j2", id=id, width=_WIDTH, height=_CELLS + _LABELS + 22,
        title=f"Precision of {len(layers)} layers over the depth of the network",
        desc=", ".join(f"{_KINDS[e]}: {kinds.count(e)}" for e in _KINDS if e in kinds),
        bars=bars, texts=_block_names(layers, width),
        legend=[{"kind": kind, "x": 8 + at * 190, "text": f"{_KINDS[kind]} ({kinds.count(kind)})"}
                for at, kind in enumerate(each for each in _KINDS if each in kinds)],
    )  # fmt: skip


def kind_of(layer: Mapping[str, Any], float_blocks: Sequence[str]) -> str:
    """Returns ``int8``, ``half``, ``kept`` (float by choice), ``zone``, or ``plain``."""
    if layer["precision"] in _LOWER:
        return _LOWER[layer["precision"]]
    if not layer["block"]:
        return "zone"
    return "kept" if layer["block"] in float_blocks else "plain"


def _block_names(layers: Sequence[Mapping[str, Any]], width: float) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    free, seen = 0.0, set()
    for at, each in enumerate(layers):
        block, x = each["block"], at * width
        if block and block not in seen and x >= free and x < _WIDTH - _LABEL_ROOM:
            found.append({"x": round(x, 1), "y": _CELLS + 14, "text": block[:10]})
            free = x + _LABEL_ROOM
        seen.add(block)
    return found
