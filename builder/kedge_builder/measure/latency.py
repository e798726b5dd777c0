"""Latency of float and built engine in interleaved rounds of one run, on this machine's clock."""

from __future__ import annotations

import time
from collections.abc import Sequence

from kedge_builder.measure.engines import Engine
from kedge_shared import timing
from kedge_shared.manifest import InputSpec, OutputSpec
from kedge_shared.timing import Latency
from kedge_shared.vision import Frame

__all__ = ["Latency", "interleaved"]


def interleaved(
    engines: Sequence[Engine],
    frames: Sequence[Frame],
    given: InputSpec,
    read: OutputSpec,
    *,
    seconds: float,
    least: int = 20,
) -> list[Latency]:
    """Times engines in turn on the same frames: :func:`kedge_shared.timing.interleaved`."""
    return timing.interleaved(
        engines, frames, given, read, clock=time.perf_counter, seconds=seconds, least=least
    )
