"""What is measured of a point, and what is kept of it."""

from __future__ import annotations

import math
from dataclasses import astuple, dataclass

from kedge_builder.search.space import Point
from kedge_shared.errors import KedgeError


class PointError(KedgeError):
    """A point cannot be built, or sees nothing.

    It is recorded with this reason and the search goes on; every other error ends the search.
    """

    exit_code = 2


@dataclass(frozen=True, kw_only=True)
class Measured:
    """Figures of a point, measured on the files that would ship, in the class's runtime.

    Attributes:
        map50_95: On the *select* split. The gate split judges the winner only: a search that
            looked at it would choose what is lucky there.
        map50: On the same images.
        latency_p50_ms: One frame, pre- and post-processing included.
        latency_p95_ms: The same.
        size_bytes: Of the engine's files.
        memory_mb: Resident memory that loading it added, MiB; ``None``: not measured.
        images: Images that the accuracy was measured on.
        machine: What it was measured on.

    Raises:
        ValueError: A figure is NaN or infinite.
    """

    map50_95: float
    map50: float
    latency_p50_ms: float
    latency_p95_ms: float
    size_bytes: int
    memory_mb: float | None
    images: int
    machine: str = ""

    def __post_init__(self) -> None:
        if not all(math.isfinite(each) for each in astuple(self) if isinstance(each, float)):
            raise ValueError(f"not every figure is finite: {self}")


@dataclass(frozen=True)
class Record:
    """A point that is finished with.

    Attributes:
        point: What was tried.
        measured: Its figures, or ``None`` where it could not be built.
        why: Why it could not; empty otherwise.
    """

    point: Point
    measured: Measured | None
    why: str = ""
