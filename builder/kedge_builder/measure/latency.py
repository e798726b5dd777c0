"""Latency in interleaved rounds of one run, on this machine's clock."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from kedge_shared import timing
from kedge_shared.timing import Latency, Timed
from kedge_shared.vision import Frame

__all__ = ["Latency", "Timed", "interleaved", "pinned"]


@contextmanager
def pinned(threads: int) -> Iterator[None]:
    """Keeps this thread, and those that engines loaded here start, on ``threads`` cores."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, sorted(before)[:threads])
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def interleaved(
    timed: Sequence[Timed], frames: Sequence[Frame], *, seconds: float
) -> list[Latency]:
    """Times engines in turn on the same frames: :func:`kedge_shared.timing.interleaved`."""
    return timing.interleaved(timed, frames, clock=time.perf_counter, seconds=seconds)
