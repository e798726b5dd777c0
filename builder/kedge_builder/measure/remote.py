"""Latency measured on a board of the device class: a signed job goes out, figures come back.

The board runs ``kedge bench-worker`` with the public part of the key that signs here. Float and
built engine are timed in turn in one run on that board, with the same code as on this machine
(kedge_shared.timing).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

from securesystemslib.signer import CryptoSigner

from kedge_builder.measure.engines import EngineFile
from kedge_builder.progress import Progress
from kedge_shared import signing
from kedge_shared.bench import (
    JOB_TYPE,
    BenchEngine,
    BenchJob,
    BenchJobInfo,
    BenchResult,
    EngineFigures,
    FrameRef,
    NoiseFrames,
    Speed,
)
from kedge_shared.client import Client
from kedge_shared.device_classes import DeviceClass
from kedge_shared.errors import KedgeError, ServiceError
from kedge_shared.ids import fresh_id, sha256_hex
from kedge_shared.manifest import FileRef, InputSpec, OutputSpec
from kedge_shared.resolver import requires
from kedge_shared.timing import Latency
from kedge_shared.vision import Frame

#: Frames of one job at the most (kedge_shared.bench).
MAX_FRAMES = 16
#: For downloads, loading and one board that dies and another that takes over, seconds.
_RUN_SECONDS = 900.0
_LOOK_SECONDS = 1.0
_FLOAT, _BUILT = "float", "built"


@dataclass(frozen=True)
class RemoteLatency:
    """What a board of the class measured.

    Attributes:
        built: Of the built engine.
        reference: Of the float engine in the same run, or ``None`` when there was none.
        speed: Built against float in that run; ``None`` where there was none, or where the worker
            is older than this figure.
        memory_mb: Resident memory that the built engine added on the board, MiB.
        device: Name of the board.
        machine: What the board is.
        runtime: Version of the runtime there.
        measured: Unix seconds by the board's clock.
    """

    built: Latency
    reference: Latency | None
    speed: Speed | None
    memory_mb: float | None
    device: str
    machine: str
    runtime: str
    measured: int

    @property
    def where(self) -> str:
        """Says where it was measured, for reports and manifests."""
        return f"{self.device}: {self.machine}"


@dataclass(frozen=True)
class Bench:
    """Where boards are asked, and how long they are waited for.

    Attributes:
        client: Of the server that the workers ask.
        signer: The bench key.
        wait_seconds: Until a board has taken the job.
        run_seconds: From then until it has answered.
        sleep: Waits between two looks; a test makes time pass with it.
        clock: Seconds, monotonic.
    """

    client: Client
    signer: CryptoSigner
    wait_seconds: float = 600.0
    run_seconds: float = _RUN_SECONDS
    sleep: Callable[[float], None] = field(default=time.sleep)
    clock: Callable[[], float] = field(default=time.monotonic)


def measure_remotely(
    bench: Bench,
    device_class: DeviceClass,
    built: Sequence[EngineFile],
    reference: Sequence[EngineFile],
    given: InputSpec,
    read: OutputSpec,
    frames: Sequence[Frame],
    progress: Progress,
    *,
    seconds: float = 6.0,
) -> RemoteLatency:
    """Has a board of the class time a build.

    Args:
        bench: Server, key and patience.
        device_class: Runtime, threads and what the board must have.
        built: Files of the built engine.
        reference: Files of the float engine, timed in turn with it; empty for none.
        given: The engines' input.
        read: How their output is read.
        frames: (h, w, 3) BGR uint8; the first 16 are uploaded as PNG. Empty: the board draws
            noise, and no picture leaves this machine.
        progress: Told of each stage.
        seconds: Time for the rounds, at most 120.

    Raises:
        ServiceError: The server is down, no board took the job in time or answered it, or the
            board could not measure it.
    """
    with TemporaryDirectory(prefix="kedge-bench-") as scratch:
        pictures = _pictures(frames[:MAX_FRAMES], Path(scratch))
        now = int(time.time())
        job = BenchJob(
            id=fresh_id("bj"), device_class=device_class.name, runtime=device_class.runtime,
            requires=requires(device_class),
            engines=_engines(built, reference), input=given, output=read,
            threads=device_class.threads, seconds=seconds,
            noise=NoiseFrames(height=given.height, width=given.width),
            frames=tuple(
                FrameRef(sha256=sha256, length=path.stat().st_size)
                for sha256, path in pictures.items()
            ),
            issued=now, expires=now + int(bench.wait_seconds + bench.run_seconds),
        )  # fmt: skip
        files = {sha256_hex(each.path.read_bytes()): each.path for each in (*built, *reference)}
        with progress.stage(f"{device_class.name}: uploading for a board"):
            _upload(bench.client, files | pictures)
    bench.client.post_bench_job(signing.seal(job, JOB_TYPE, bench.signer))
    with _withdrawn(bench.client, job.id):
        return _remote(_wait(bench, job, progress), job)


def _upload(client: Client, files: Mapping[str, Path]) -> None:
    for sha256, path in files.items():
        if not client.has_artifact(sha256):
            client.upload(path, sha256, lambda _: None)


def _engines(
    built: Sequence[EngineFile], reference: Sequence[EngineFile]
) -> tuple[BenchEngine, ...]:
    """Returns the job's engines: first the one whose memory a fresh process can tell."""
    first = _engine(_BUILT, built)
    return (first, _engine(_FLOAT, reference)) if reference else (first,)


def _engine(name: str, files: Sequence[EngineFile]) -> BenchEngine:
    return BenchEngine(
        name=name,
        files=tuple(
            FileRef(
                role=each.role, name=each.role, sha256=sha256_hex(each.path.read_bytes()),
                length=each.path.stat().st_size,
            )
            for each in files
        ),
    )  # fmt: skip


def _pictures(frames: Sequence[Frame], scratch: Path) -> dict[str, Path]:
    """Writes frames as PNG, which loses nothing; returns hash → file."""
    import cv2

    found: dict[str, Path] = {}
    for at, frame in enumerate(frames):
        path = scratch / f"{at}.png"
        path.write_bytes(cv2.imencode(".png", frame)[1].tobytes())
        found[sha256_hex(path.read_bytes())] = path
    return found


@contextmanager
def _withdrawn(client: Client, job: str) -> Iterator[None]:
    """Takes a job back when its builder stops waiting, so that no board works for nobody."""
    try:
        yield
    except BaseException:
        with suppress(KedgeError):
            client.withdraw_bench_job(job)
        raise


def _wait(bench: Bench, job: BenchJob, progress: Progress) -> BenchResult:
    """Waits until a board has taken the job, then until it has answered."""
    name = job.device_class
    with progress.stage(f"{name}: waiting for a board"):
        info = _until(bench, job.id, bench.wait_seconds, lambda each: each.state != "waiting")
    if not info.attempts:
        raise ServiceError(
            f"no board of class {name} took the job in {bench.wait_seconds:.0f} s",
            "start `kedge bench-worker` on one",
        )
    with progress.stage(f"{name}: latency on {info.device or 'a board'}"):
        info = _until(
            bench, job.id, bench.run_seconds, lambda each: each.state not in {"waiting", "running"}
        )
    if info.result is None:
        raise ServiceError(
            f"board {info.device} took the job of class {name} and did not answer "
            f"(taken {info.attempts} times)",
            "look at the output of `kedge bench-worker` there",
        )
    return info.result


def _until(
    bench: Bench, job: str, seconds: float, condition: Callable[[BenchJobInfo], bool]
) -> BenchJobInfo:
    """Returns the job's last known standing: as wanted, or when the time is up."""
    until = bench.clock() + seconds
    while True:
        info = bench.client.bench_job(job)
        if condition(info) or bench.clock() >= until:
            return info
        bench.sleep(_LOOK_SECONDS)


def _remote(result: BenchResult, job: BenchJob) -> RemoteLatency:
    if result.failure is not None:
        trust = result.failure.code == "trust"
        raise ServiceError(
            f"board {result.device} did not measure the build: {result.failure.reason}",
            "name the public part of the bench key in its trusted_keys" if trust else "",
        )
    found = {each.name: each for each in result.engines}
    if set(found) != {each.name for each in job.engines}:
        raise ServiceError(f"board {result.device} did not measure what it was asked to")
    beside = found.get(_FLOAT)
    return RemoteLatency(
        built=_latency(found[_BUILT]),
        reference=_latency(beside) if beside else None,
        speed=beside.outrun if beside else None,
        memory_mb=found[_BUILT].memory_mb,
        device=result.device,
        machine=result.machine,
        runtime=result.runtime,
        measured=result.measured,
    )


def _latency(figures: EngineFigures) -> Latency:
    return Latency(figures.p50_ms, figures.p95_ms, figures.engine_p50_ms, figures.rounds)
