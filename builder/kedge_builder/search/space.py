"""What may be tried: pruning x input size x precision. Pure."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

from kedge_shared.device_classes import DeviceClass

#: Name of the plan that quantizes nothing.
FLOAT = "float"
#: Input sizes that are tried, as shares of the class's. Below half, objects of a size that the
#: model was trained for fall under one cell of the finest stride.
SIZE_SHARES = (1.0, 0.8, 0.65, 0.5)
_SMALLEST = 32
#: Fewer points show no trade between accuracy, time and size.
LEAST_TRIALS = 12


@dataclass(frozen=True, order=True)
class Point:
    """One way to build the model.

    Attributes:
        pruned: Step of the pruning chain; 0 is unpruned.
        input_size: Pixels, square.
        precision: Name of a quantization plan, for example ``int8``; ``float`` quantizes nothing.
    """

    pruned: int
    input_size: int
    precision: str

    @property
    def key(self) -> str:
        """Canonical name: the same for the same point in every process and version."""
        return f"pruned={self.pruned},size={self.input_size},precision={self.precision}"

    @property
    def title(self) -> str:
        """What people call it."""
        pruned = f"pruning step {self.pruned}" if self.pruned else "unpruned"
        return f"{pruned}, {self.input_size} px, {self.precision}"


@dataclass(frozen=True)
class Space:
    """The choices, each axis in its natural order.

    Attributes:
        pruned: Steps of the pruning chain, from little to much.
        input_sizes: Pixels, from large to small.
        precisions: Plans, the class's usual one before its variants.
        baseline: What every drop is counted from: unpruned, in float, at the class's size.

    Raises:
        ValueError: An axis is empty or names a choice twice, or the baseline is not on it.
    """

    pruned: tuple[int, ...]
    input_sizes: tuple[int, ...]
    precisions: tuple[str, ...]
    baseline: Point

    def __post_init__(self) -> None:
        for axis in (self.pruned, self.input_sizes, self.precisions):
            if not axis or len(set(axis)) < len(axis):
                raise ValueError(f"choices {axis!r} are empty or not distinct")
        if self.baseline not in self.points():
            raise ValueError(f"baseline {self.baseline.key} is not in the space")

    def points(self) -> tuple[Point, ...]:
        """Returns every point, in order."""
        every = itertools.product(self.pruned, self.input_sizes, self.precisions)
        return tuple(Point(*each) for each in every)

    def anchors(self) -> tuple[Point, ...]:
        """Returns what is measured first: the baseline, and the build that no search would make."""
        size = self.baseline.input_size
        plain = [each for each in self.precisions if each != self.baseline.precision][:1]
        return (self.baseline, *(Point(self.baseline.pruned, size, each) for each in plain))


def space_of(
    device_class: DeviceClass,
    *,
    pruning_steps: int,
    precisions: Sequence[str],
    input_size: int | None = None,
    stride: int = 32,
) -> Space:
    """Returns the space of a device class.

    Args:
        device_class: Gives the input size.
        pruning_steps: Length of the pruning chain at hand; 0 leaves pruning out.
        precisions: Plans that the class's runtime has, without ``float``, the usual one first.
        input_size: Pixels instead of the class's.
        stride: Of the model's coarsest output; sizes are multiples of it.
    """
    full = input_size or device_class.input_size
    smaller = (int(full * share) // stride * stride for share in SIZE_SHARES[1:])
    sizes = dict.fromkeys((full, *(each for each in smaller if _SMALLEST <= each < full)))
    return Space(
        pruned=tuple(range(pruning_steps + 1)),
        input_sizes=tuple(sizes),
        precisions=(*precisions, FLOAT),
        baseline=Point(0, full, FLOAT),
    )
