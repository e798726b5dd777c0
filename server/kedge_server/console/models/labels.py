"""Where names stand beside the dots of a drawing, clear of dots and of each other. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

#: A character is so wide, a line so high, and a name so far from its dot, in the drawing's units.
_CHARACTER, _LINE, _APART = 6.7, 15.0, 12.0
_DOT = 6.0


@dataclass(frozen=True)
class Label:
    """A name.

    Attributes:
        text: It.
        x: Where it begins, or ends where ``ends``.
        y: Its base line.
        ends: It ends at ``x``.
    """

    text: str
    x: float
    y: float
    ends: bool

    @property
    def box(self) -> tuple[float, float, float, float]:
        """Left, top, right, bottom."""
        wide = len(self.text) * _CHARACTER
        left = self.x - wide if self.ends else self.x
        return left, self.y - _LINE + 3, left + wide, self.y + 3


def place(
    named: Sequence[tuple[float, float, str]], dots: Sequence[tuple[float, float]],
    frame: tuple[float, float, float, float],
) -> list[Label]:  # fmt: skip
    """Gives each name the place that hides least, the first ones first.

    Args:
        named: x and y of a dot, and its name.
        dots: x and y of every dot.
        frame: Left, top, right, bottom of where names may stand.
    """
    found = list[Label]()
    boxes = [(x - _DOT, y - _DOT, x + _DOT, y + _DOT) for x, y in dots]
    for x, y, text in named:
        best = min(_places(x, y, text), key=lambda each: _hidden(each.box, boxes, frame))
        found.append(best)
        boxes.append(best.box)
    return found


def _places(x: float, y: float, text: str) -> Iterator[Label]:
    """Yields places around a dot, the usual ones first."""
    for down in (-8.0, 18.0, 5.0, -26.0, 36.0, -44.0, 54.0):
        yield Label(text, x + _APART, y + down, False)
        yield Label(text, x - _APART, y + down, True)


def _hidden(
    box: tuple[float, float, float, float],
    others: Sequence[tuple[float, float, float, float]], frame: tuple[float, float, float, float],
) -> float:  # fmt: skip
    """Returns the area that is covered twice; what leaves the frame counts tenfold."""
    area = (box[2] - box[0]) * (box[3] - box[1])
    return sum(_shared(box, each) for each in others) + 10 * (area - _shared(box, frame))


def _shared(
    one: tuple[float, float, float, float], other: tuple[float, float, float, float]
) -> float:  # fmt: skip
    wide = min(one[2], other[2]) - max(one[0], other[0])
    high = min(one[3], other[3]) - max(one[1], other[1])
    return max(wide, 0.0) * max(high, 0.0)
