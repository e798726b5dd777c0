"""Latency in interleaved rounds of one run, on this machine's clock."""

from __future__ import annotations

import time
from collections.abc import Sequence

from kedge_shared import timing
from kedge_shared.timing import Latency, Timed
from kedge_shared.vision import Frame

__all__ = ["Latency", "Timed", "interleaved"]


def interleaved(
    timed: Sequence[Timed], frames: Sequence[Frame], *, seconds: float
) -> list[Latency]:
    """Times engines in turn on the same frames: :func:`kedge_shared.timing.interleaved`."""
    return timing.interleaved(timed, frames, clock=time.perf_counter, seconds=seconds)
