"""The measuring child: a foreign engine's run, in a process that may die of it.

``python -m kedge_agent.bench.child`` reads an order on standard input and writes what it measured
on standard output. Unlike the preflight child it is not niced: what counts is the time of a board
that does nothing else.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np

from kedge_agent import limits
from kedge_agent.blobs import BlobStore
from kedge_agent.children import leave
from kedge_agent.detector import open_files, release
from kedge_agent.errors import EngineError
from kedge_agent.runtimes.base import Engine, Runtime
from kedge_agent.runtimes.registry import RUNTIMES
from kedge_shared.bench import (
    JOB_LIMIT_BYTES,
    BenchCode,
    BenchEngine,
    BenchFailure,
    BenchJob,
    EngineFigures,
)
from kedge_shared.errors import KedgeError, StorageError, TrustError
from kedge_shared.policy import FRAME_LIMIT_BYTES
from kedge_shared.timing import Latency, Timed, interleaved, speed
from kedge_shared.vision import Frame


@dataclass(frozen=True, kw_only=True)
class Order:
    """What the child is given; the worker has checked the job's signature.

    Attributes:
        blobs: The blob store's folder.
        job: What to measure.
        memory_mb: Address-space limit, MiB; 0 is none.
    """

    blobs: str
    job: BenchJob
    memory_mb: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What the child measured, or why it could not.

    Attributes:
        engines: In the job's order; empty after a failure.
        failure: ``None`` when everything was measured.
    """

    engines: tuple[EngineFigures, ...] = ()
    failure: BenchFailure | None = None


def measure(order: Order) -> Outcome:
    """Loads every engine of a job from verified bytes and times them in turn.

    Raises:
        TrustError: A file was altered on the way to the runtime; it was not called.
        StorageError: A file is missing.
        EngineError: The runtime does not take an engine, or it fails on a frame.
    """
    job, store = order.job, BlobStore(Path(order.blobs))
    runtime = RUNTIMES.get(job.runtime.name)
    # The import is not the engine's memory.
    if runtime is None or runtime.probe() is None:
        raise EngineError(f"runtime {job.runtime.name} is not on the board")
    frames = frames_of(job, store)
    before = limits.resident_mb()
    engines = [_load(job.engines[0], job, store, runtime)]
    memory = max(0.0, limits.resident_mb() - before)
    engines += [_load(each, job, store, runtime) for each in job.engines[1:]]
    try:
        timed = interleaved(
            [Timed(each, job.input, job.output) for each in engines], frames,
            clock=time.perf_counter, seconds=job.seconds, least=job.least_rounds,
        )  # fmt: skip
    except ValueError as error:
        raise EngineError(str(error)) from None
    return Outcome(engines=figures([each.name for each in job.engines], timed, memory))


def figures(
    names: Sequence[str], timed: Sequence[Latency], memory_mb: float
) -> tuple[EngineFigures, ...]:
    """Puts into an answer what was measured; the first of the engines is what it is about.

    Args:
        names: Of the engines.
        timed: Their rounds, of one run.
        memory_mb: What the first took.
    """
    return tuple(
        EngineFigures(
            name=name, p50_ms=found.p50, p95_ms=found.p95, engine_p50_ms=found.engine_p50,
            rounds=found.rounds, memory_mb=None if at else memory_mb,
            outrun=speed(found, timed[0]) if at else None,
        )
        for at, (name, found) in enumerate(zip(names, timed, strict=True))
    )  # fmt: skip


def _load(engine: BenchEngine, job: BenchJob, store: BlobStore, runtime: Runtime) -> Engine:
    blobs = open_files(engine.files, store)
    try:
        loaded = runtime.load(blobs, job, threads=job.threads)
    finally:
        for each in blobs.values():
            release(each)
    # What an engine allocates at its first frame is its memory too.
    loaded.infer(np.zeros((1, 3, job.input.height, job.input.width), dtype=np.float32))
    return loaded


def frames_of(job: BenchJob, store: BlobStore) -> list[Frame]:
    """Returns a job's frames, (h, w, 3) BGR uint8: uploaded ones, verified, or drawn noise.

    Raises:
        TrustError: A frame was altered.
        EngineError: A frame is no image.
    """
    if not job.frames:
        noise = job.noise
        rng = np.random.default_rng(noise.seed)
        shape = (noise.height, noise.width, 3)
        return [rng.integers(0, 256, shape, dtype=np.uint8) for _ in range(noise.count)]
    import cv2

    found: list[Frame] = []
    for each in job.frames:
        data = store.read_verified(each.sha256, FRAME_LIMIT_BYTES)
        image = cv2.imdecode(np.frombuffer(data, dtype=np.uint8), cv2.IMREAD_COLOR)
        if image is None:
            raise EngineError(f"frame {each.sha256[:12]} is no image")
        found.append(np.asarray(image, dtype=np.uint8))
    return found


def _failure(error: KedgeError) -> Outcome:
    codes: dict[type[KedgeError], BenchCode] = {TrustError: "trust", StorageError: "disk"}
    code = codes.get(type(error), "engine")
    return Outcome(failure=BenchFailure(code=code, reason=str(error)[:1000]))


def main() -> None:
    """Reads an order, measures, writes the outcome."""
    order = msgspec.json.decode(sys.stdin.buffer.read(2 * JOB_LIMIT_BYTES), type=Order)
    # What a vendor prints must not end up in the answer.
    answer = os.dup(1)
    os.dup2(2, 1)
    limits.die_with_parent()
    limits.be_first_to_be_killed()
    limits.pin(order.job.threads)
    limits.limit_memory(order.memory_mb)
    try:
        import cv2

        cv2.setNumThreads(1)
        outcome = measure(order)
    except KedgeError as error:
        outcome = _failure(error)
    except MemoryError:
        outcome = Outcome(failure=BenchFailure(code="memory", reason="out of memory"))
    os.write(answer, msgspec.json.encode(outcome))
    leave()


if __name__ == "__main__":
    main()
