"""A search whose measurements are computed, not made: a process of its own, to be killed.

Each measurement is appended to a log when it begins and when it ends.
"""

from __future__ import annotations

import itertools
import os
import sys
import time
from dataclasses import replace
from pathlib import Path

from kedge_builder.progress import Progress
from kedge_builder.search.measured import Measured, PointError
from kedge_builder.search.pareto import Limits
from kedge_builder.search.space import FLOAT, Point, Space
from kedge_builder.search.study import Explored, Inputs, Measure, SearchOptions, explore
from kedge_shared.device_classes import Budgets, find_class
from tests.waiting import wait_for

BUDGETS = Budgets(latency_p95_ms=60.0, accuracy_drop=0.02)
SPACE = Space((0, 1, 2), (640, 512), ("int8", "int8+mixed-1", FLOAT), Point(0, 640, FLOAT))
#: Too much pruned for mixed precision: cannot be built.
BROKEN = Point(2, 512, "int8+mixed-1")


def measured(accuracy: float, latency: float, size: int, memory: float | None = 10.0) -> Measured:
    return Measured(
        map50_95=accuracy, map50=accuracy, latency_p50_ms=latency, latency_p95_ms=latency * 1.2,
        size_bytes=size, memory_mb=memory, images=64,
    )  # fmt: skip


def figures(point: Point) -> Measured:
    """Pruning, pixels and bits cost accuracy and buy time, smoothly."""
    if point == BROKEN:
        raise PointError("every score is zero after quantizing")
    work = (point.input_size / 640) ** 2 * (1 - 0.2 * point.pruned)
    bits = {FLOAT: 1.0, "int8": 0.5, "int8+mixed-1": 0.6}[point.precision]
    lost = 0.004 * point.pruned + 0.00006 * (640 - point.input_size) + 0.012 * (1 - bits)
    return Measured(
        map50_95=0.40 - lost,
        map50=0.60 - lost,
        latency_p50_ms=90 * work * bits,
        latency_p95_ms=100 * work * bits,
        size_bytes=int(12_000_000 * (1 - 0.2 * point.pruned) * bits),
        memory_mb=80 * work,
        images=64,
        machine="a computed machine",
    )


def inputs(space: Space = SPACE) -> Inputs:
    return Inputs(
        weights_sha256="1" * 64,
        data_sha256="2" * 64,
        device_class=replace(find_class("x86-onnxruntime"), budgets=BUDGETS),
        space=space,
        tools={"onnxruntime": "1.32"},
    )


def search(
    cache: Path,
    measure: Measure,
    *,
    space: Space = SPACE,
    trials: int = 18,
    seed: int = 0,
    stale_seconds: int = 2,
) -> Explored:
    options = SearchOptions(
        cache=cache, trials=trials, seed=seed, heartbeat_seconds=1, stale_seconds=stale_seconds
    )
    limits = Limits(BUDGETS, space.baseline)
    return explore(inputs(space), limits, measure, options, Progress(quiet=True))


def logging_measure(log: Path, seconds: float, hang_after: int = 1000) -> Measure:
    """Logs when a measurement begins and ends; after ``hang_after`` of them the next one hangs."""
    count = itertools.count()

    def note(kind: str, point: Point) -> None:
        with log.open("a") as file:
            file.write(f"{kind} {point.key} {os.getpid()}\n")

    def measure(point: Point) -> Measured:
        note("begin", point)
        time.sleep(seconds if next(count) < hang_after else 300)
        note("end", point)
        return figures(point)

    return measure


def gather(log: Path, workers: int) -> None:
    """Waits until so many are here: the first one would do it all while the others start."""
    with log.open("a") as file:
        file.write(f"here - {os.getpid()}\n")
    wait_for(lambda: log.read_text().count("here") >= workers)


if __name__ == "__main__":
    log = Path(sys.argv[2])
    measure = logging_measure(log, float(sys.argv[3]), int(sys.argv[4]))
    gather(log, int(sys.argv[5]))
    # Who lives is not taken for dead because the machine stalls.
    search(Path(sys.argv[1]), measure, stale_seconds=300)
