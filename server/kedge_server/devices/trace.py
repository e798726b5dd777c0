"""The frame time of a board's last windows, as they stand with its start: short text. Pure.

Windows themselves are summed over boards and not kept (:mod:`kedge_server.devices.intake`); of each
board so much stays that its page shows an hour of a line when it is opened.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

#: Windows of one start: an hour at an agent's usual five minutes; 320 bytes at the most.
MOST = 12
SHARES = (0.5, 0.95, 0.99)


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


def grown(text: str, at: float, figures: Sequence[float]) -> str:
    """Returns a trace with one window more.

    Of windows that came at once (a board was offline) the last one stands.

    Args:
        text: The trace.
        at: Unix seconds.
        figures: Frame times at :data:`SHARES`, milliseconds; empty adds nothing.
    """
    if not figures:
        return text
    row = f"{at:.0f} {' '.join(f'{each:.3g}' for each in figures)}"
    before, _, last = text.rpartition(";")
    if last.startswith(f"{at:.0f} "):
        text = before
    if text.count(";") >= MOST - 1:
        text = text.partition(";")[2]
    return f"{text};{row}" if text else row


def read(texts: Iterable[str]) -> list[Point]:
    """Returns the windows of several starts of a board, oldest first, the newest of them."""
    points = [
        Point(*map(float, row.split(" "))) for text in texts for row in text.split(";") if row
    ]
    return sorted(points)[-MOST:]
