"""The frame time of a board's last windows, as they stand with its start: short text. Pure.

Windows themselves are summed over boards and not kept (:mod:`kedge_server.devices.intake`); of each
board so much stays that its page shows two hours of a line when it is opened.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from kedge_shared.histogram import Histogram

#: Windows of one start: two hours at an agent's usual five minutes; 600 bytes at the most.
MOST = 24
_SHARES = (0.5, 0.95, 0.99)


class Point(NamedTuple):
    """One window.

    Attributes:
        at: Unix seconds of its report.
        p50: Milliseconds.
        p95: The same.
        p99: The same.
    """

    at: float
    p50: float
    p95: float
    p99: float


def grown(text: str, at: float, held: Histogram) -> str:
    """Returns a trace with one window more; an empty window adds nothing.

    Of windows that came at once (a board was offline) the last one stands.
    """
    figures = [held.quantile(each) for each in _SHARES]
    if None in figures:
        return text
    point = " ".join(f"{each:.4g}" for each in figures)
    rows = [each for each in text.split(";") if each and not each.startswith(f"{at:.0f} ")]
    return ";".join([*rows, f"{at:.0f} {point}"][-MOST:])


def read(texts: Iterable[str]) -> list[Point]:
    """Returns the windows of several starts of a board, oldest first, the newest of them."""
    points = [
        Point(*map(float, row.split(" "))) for text in texts for row in text.split(";") if row
    ]
    return sorted(points)[-MOST:]
