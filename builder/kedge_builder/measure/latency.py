"""Latency of float and built engine in interleaved rounds of one run: only ratios travel."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from kedge_builder.measure.engines import Engine
from kedge_shared.manifest import InputSpec, OutputSpec
from kedge_shared.vision import Frame, decode, prepare

_WARM_UP = 3


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
    engines: Sequence[Engine],
    frames: Sequence[Frame],
    given: InputSpec,
    read: OutputSpec,
    *,
    seconds: float,
    least: int = 20,
) -> list[Latency]:
    """Times engines in turn on the same frames.

    Args:
        engines: Compared; the order is turned from round to round.
        frames: Real images.
        given: The engines' input.
        read: How the output is read.
        seconds: Budget of time in all.
        least: Rounds even if that takes longer.
    """
    totals: list[list[float]] = [[] for _ in engines]
    cores: list[list[float]] = [[] for _ in engines]
    started = time.perf_counter()
    at = -_WARM_UP
    while at < least or time.perf_counter() - started < seconds:
        frame = frames[at % len(frames)]
        for turn in range(len(engines)):
            which = (turn + at) % len(engines)
            total, core = _once(engines[which], frame, given, read)
            if at >= 0:
                totals[which].append(total)
                cores[which].append(core)
        at += 1
    return [_latency(total, core) for total, core in zip(totals, cores, strict=True)]


def _once(engine: Engine, frame: Frame, given: InputSpec, read: OutputSpec) -> tuple[float, float]:
    start = time.perf_counter()
    batch, place = prepare(frame, given)
    before = time.perf_counter()
    raw = engine.infer(batch)
    after = time.perf_counter()
    decode(np.nan_to_num(raw), place, read)
    return (time.perf_counter() - start) * 1000, (after - before) * 1000


def _latency(totals: Sequence[float], cores: Sequence[float]) -> Latency:
    return Latency(
        p50=float(np.quantile(totals, 0.5)),
        p95=float(np.quantile(totals, 0.95)),
        engine_p50=float(np.quantile(cores, 0.5)),
        rounds=len(totals),
    )
