"""What is summed of windows, and how. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import reduce
from typing import Literal

from kedge_shared.histogram import Histogram, merge
from kedge_shared.protocol import CONFIDENCE_BINS, Window

Level = Literal["hour", "day"]
SECONDS: dict[Level, int] = {"hour": 3600, "day": 86400}
#: Buckets of a histogram that a frame time can fall into: a microsecond to eighteen hours.
_LOWEST, _HIGHEST = -80, 208
#: No board sees more frames in a window; what says so would drown all others.
_MOST = 10_000_000
_NUMBER = re.compile(r"-?\d{1,4}")


@dataclass(frozen=True, kw_only=True)
class Sums:
    """Counts and histograms of any number of windows.

    Attributes:
        windows: How many.
        seconds: Of all of them.
        frames: Frames that reached the sink.
        dropped: Frames overwritten before the engine took them.
        errors: Frames on which the engine failed.
        latency_ms: Frame time, milliseconds.
        confidence: Detections by confidence, equal bins of 0..1; empty where nobody counts them.
    """

    windows: int = 0
    seconds: float = 0.0
    frames: int = 0
    dropped: int = 0
    errors: int = 0
    latency_ms: Histogram = field(default_factory=Histogram)
    confidence: tuple[int, ...] = ()


def of(window: Window) -> Sums:
    """Returns a window's sums, of which one board cannot make what all others say unreadable."""
    counts = {
        index: min(count, _MOST)
        for index, count in window.latency_ms.counts.items()
        if _NUMBER.fullmatch(index) and _LOWEST <= int(index) <= _HIGHEST and count > 0
    }
    held = Histogram(counts, min(max(window.latency_ms.total, 0.0), 1e12))
    return Sums(
        windows=1, seconds=min(max(window.seconds, 0.0), 86400.0),
        frames=min(window.frames, _MOST), dropped=min(window.dropped, _MOST),
        errors=min(window.errors, _MOST), latency_ms=held,
        confidence=tuple(min(max(each, 0), _MOST) for each in window.confidence),
    )  # fmt: skip


def total(parts: Iterable[Sums]) -> Sums:
    """Returns the sums of everything in ``parts``; in whatever order and grouping."""
    held = list(parts)
    return Sums(
        windows=sum(each.windows for each in held),
        seconds=sum(each.seconds for each in held),
        frames=sum(each.frames for each in held),
        dropped=sum(each.dropped for each in held),
        errors=sum(each.errors for each in held),
        latency_ms=merge(each.latency_ms for each in held),
        confidence=reduce(_bins, (each.confidence for each in held), ()),
    )


def start_of(level: Level, at: float) -> int:
    """Returns the beginning of the hour or day (UTC), Unix seconds."""
    return int(at // SECONDS[level] * SECONDS[level])


def _bins(left: tuple[int, ...], right: tuple[int, ...]) -> tuple[int, ...]:
    if not (left and right):
        return left or right
    wide = [*left, *[0] * (CONFIDENCE_BINS - len(left))]
    return tuple(a + b for a, b in zip(wide, [*right, *[0] * (CONFIDENCE_BINS - len(right))],
                                       strict=True))  # fmt: skip
