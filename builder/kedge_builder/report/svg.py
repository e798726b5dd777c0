"""What the pictures share: scales, ticks, and templates that escape every label. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

if TYPE_CHECKING:
    from jinja2 import Environment


@dataclass(frozen=True)
class Scale:
    """A straight line from figures to pixels.

    Attributes:
        low: Figure that lies at ``start``.
        high: Figure that lies at ``end``.
        start: Pixels.
        end: Pixels.
    """

    low: float
    high: float
    start: float
    end: float

    @classmethod
    def around(
        cls,
        values: Sequence[float],
        start: float,
        end: float,
        room: float,
        least: float | None = None,
    ) -> Scale:
        """Returns a scale that holds ``values`` with room at both ends.

        Args:
            values: One at least.
            start: Pixels of the low end.
            end: Pixels of the high end.
            room: Share of the span that is left free at each end.
            least: The low end is not below it.
        """
        low, high = min(values), max(values)
        margin = (high - low) * room or abs(high) * room or 1.0
        low = low - margin if least is None else max(least, low - margin)
        return cls(low, high + margin, start, end)

    def __call__(self, value: float) -> float:
        """Returns the pixels of a figure."""
        share = (value - self.low) / (self.high - self.low)
        return round(self.start + share * (self.end - self.start), 1)


def ticks(low: float, high: float, most: int) -> list[tuple[float, str]]:
    """Returns round figures between ``low`` and ``high`` with their labels, ``most`` at most."""
    rough = (high - low) / most
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * each for each in (1, 2, 5, 10) if power * each >= rough)
    digits = max(0, -math.floor(math.log10(step) + 1e-9))
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [(at * step, f"{at * step:.{digits}f}") for at in range(first, last + 1)]


def render(template: str, **values: Any) -> Markup:
    """Renders one of this folder's SVG templates; every value is escaped."""
    # The template is ours and escapes what it is given, so the whole is safe markup.
    return Markup(_environment().get_template(template).render(values))  # noqa: S704


@cache
def _environment() -> Environment:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    return Environment(
        loader=PackageLoader("kedge_builder.report", ""),
        autoescape=True,
        undefined=StrictUndefined,
    )
