"""Bench jobs whose engines are mere bytes, and answers to them."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

from kedge_shared.bench import (
    BenchEngine,
    BenchJob,
    BenchResult,
    EngineFigures,
    NoiseFrames,
    Speed,
)
from kedge_shared.client import Client
from kedge_shared.ids import sha256_hex
from kedge_shared.manifest import FileRef
from tests.shared import samples

ENGINE = b"an engine" * 100


def bench_job(name: str = "bj-1", engine: bytes = ENGINE) -> BenchJob:
    now, manifest = int(time.time()), samples.manifest()
    file = FileRef(role="engine", name="model.onnx", sha256=sha256_hex(engine), length=len(engine))
    return BenchJob(
        id=name, device_class="x86-onnxruntime", runtime=manifest.runtime,
        requires=manifest.requires, engines=(BenchEngine(name="built", files=(file,)),),
        input=manifest.input, output=manifest.output, threads=1,
        noise=NoiseFrames(height=160, width=160), issued=now, expires=now + 600,
        seconds=0.1, least_rounds=4,
    )  # fmt: skip


def upload(client: Client, job: BenchJob, body: bytes = ENGINE) -> BenchJob:
    """Uploads a job's one engine file."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "engine"
        path.write_bytes(body)
        client.upload(path, sha256_hex(body), lambda _: None)
    return job


def bench_result(job: BenchJob, device: str) -> BenchResult:
    figures = tuple(
        EngineFigures(name=each.name, p50_ms=2.0, p95_ms=3.0, engine_p50_ms=1.5, rounds=20,
                      memory_mb=None if at else 12.5, outrun=Speed(1.5, 1.2, 1.7) if at else None)
        for at, each in enumerate(job.engines)
    )  # fmt: skip
    return BenchResult(
        job=job.id, device=device, machine="a board, 4 cores", runtime="1.32.0",
        measured=int(time.time()), engines=figures,
    )  # fmt: skip
