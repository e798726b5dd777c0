"""Interleaved timing rounds: builder and bench worker count the same way. Pure but for the engine.

Machines drift (clocks, neighbours, heat), so engines that are compared take turns on the same
frames within one run, and the order turns too: only ratios of one run travel.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from kedge_shared.detections import Array
from kedge_shared.manifest import InputSpec, OutputSpec
from kedge_shared.vision import Frame, decode, prepare

_WARM_UP = 3
#: Seconds, monotonic.
Clock = Callable[[], float]


class Infers(Protocol):
    """What is timed."""

    def infer(self, batch: Array) -> Array:
        """Runs (1, 3, height, width) float32 and returns the raw output."""
        ...


@dataclass(frozen=True)
class Latency:
    """Milliseconds for one frame, pre- and post-processing included.

    Attributes:
        p50: Median.
        p95: 95th percentile.
        engine_p50: Median of the engine alone.
        rounds: Frames.
    """

    p50: float
    p95: float
    engine_p50: float
    rounds: int


def interleaved(
    engines: Sequence[Infers],
    frames: Sequence[Frame],
    given: InputSpec,
    read: OutputSpec,
    *,
    clock: Clock,
    seconds: float,
    least: int = 20,
) -> list[Latency]:
    """Times engines in turn on the same frames.

    Args:
        engines: Compared; the order is turned from round to round.
        frames: (h, w, 3) BGR uint8 each.
        given: The engines' input.
        read: How the output is read.
        clock: Tells seconds.
        seconds: Budget of time in all.
        least: Rounds even if that takes longer.
    """
    totals: list[list[float]] = [[] for _ in engines]
    cores: list[list[float]] = [[] for _ in engines]
    started = clock()
    at = -_WARM_UP
    while at < least or clock() - started < seconds:
        frame = frames[at % len(frames)]
        for turn in range(len(engines)):
            which = (turn + at) % len(engines)
            total, core = _once(engines[which], frame, given, read, clock)
            if at >= 0:
                totals[which].append(total)
                cores[which].append(core)
        at += 1
    return [_latency(total, core) for total, core in zip(totals, cores, strict=True)]


def _once(
    engine: Infers, frame: Frame, given: InputSpec, read: OutputSpec, clock: Clock
) -> tuple[float, float]:
    start = clock()
    batch, place = prepare(frame, given)
    before = clock()
    raw = engine.infer(batch)
    after = clock()
    decode(np.nan_to_num(raw), place, read)
    return (clock() - start) * 1000, (after - before) * 1000


def _latency(totals: Sequence[float], cores: Sequence[float]) -> Latency:
    return Latency(
        p50=float(np.quantile(totals, 0.5)),
        p95=float(np.quantile(totals, 0.95)),
        engine_p50=float(np.quantile(cores, 0.5)),
        rounds=len(totals),
    )
