"""Interleaved timing rounds: builder and bench worker count the same way. Pure but for the engine.

Machines drift (clocks, neighbours, heat), so engines that are compared take turns on the same
frames within one run, and the order turns too: only ratios of one run travel.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from kedge_shared.bench import Speed
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
        frames_ms: Every frame, in the order of the rounds; empty for another machine's figures.
    """

    p50: float
    p95: float
    engine_p50: float
    rounds: int
    frames_ms: tuple[float, ...] = ()


@dataclass(frozen=True)
class Timed:
    """One engine of a comparison.

    Attributes:
        engine: Loaded.
        given: Its input.
        read: How its output is read.
    """

    engine: Infers
    given: InputSpec
    read: OutputSpec


def interleaved(
    timed: Sequence[Timed],
    frames: Sequence[Frame],
    *,
    clock: Clock,
    seconds: float,
    least: int = 20,
) -> list[Latency]:
    """Times engines in turn on the same frames.

    Args:
        timed: Compared; the order is turned from round to round.
        frames: (h, w, 3) BGR uint8 each.
        clock: Tells seconds.
        seconds: Budget of time in all.
        least: Rounds even if that takes longer.
    """
    totals: list[list[float]] = [[] for _ in timed]
    cores: list[list[float]] = [[] for _ in timed]
    started = clock()
    at = -_WARM_UP
    while at < least or clock() - started < seconds:
        frame = frames[at % len(frames)]
        for turn in range(len(timed)):
            which = (turn + at) % len(timed)
            total, core = _once(timed[which], frame, clock)
            if at >= 0:
                totals[which].append(total)
                cores[which].append(core)
        at += 1
    return [_latency(total, core) for total, core in zip(totals, cores, strict=True)]


def speed(before: Latency, after: Latency) -> Speed:
    """Returns how many times as fast ``after`` is as ``before``, round by round of one run.

    The interval is that of a median by order statistics (Conover 1999, section 3.2): it asks
    nothing of the distribution, and a neighbour who takes the core for some rounds does not move
    it.

    Raises:
        ValueError: They are not of one run.
    """
    if not before.frames_ms:
        raise ValueError("without its rounds a run tells no interval")
    ratios = sorted(b / a for b, a in zip(before.frames_ms, after.frames_ms, strict=True))
    count = len(ratios)
    reach = 1.96 * math.sqrt(count) / 2
    low = ratios[max(0, math.floor(count / 2 - reach))]
    high = ratios[min(count - 1, math.ceil(count / 2 + reach))]
    return Speed(float(np.median(ratios)), low, high)


def _once(timed: Timed, frame: Frame, clock: Clock) -> tuple[float, float]:
    start = clock()
    batch, place = prepare(frame, timed.given)
    before = clock()
    raw = timed.engine.infer(batch)
    after = clock()
    decode(np.nan_to_num(raw), place, timed.read)
    return (clock() - start) * 1000, (after - before) * 1000


def _latency(totals: Sequence[float], cores: Sequence[float]) -> Latency:
    return Latency(
        p50=float(np.quantile(totals, 0.5)),
        p95=float(np.quantile(totals, 0.95)),
        engine_p50=float(np.quantile(cores, 0.5)),
        rounds=len(totals),
        frames_ms=tuple(totals),
    )
