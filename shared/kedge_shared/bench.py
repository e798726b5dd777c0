"""Latency measured on another machine: a signed job, and what the board that ran it answers.

The builder signs a job with its bench key, the server hands it to one worker of the class, the
worker checks the signature against the keys in its own configuration before it fetches a byte
(docs/adr/0006-bench-jobs-are-signed.md), and signs the result with its device key.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from msgspec import Meta
from securesystemslib.signer import Key

from kedge_shared import signing
from kedge_shared.device_classes import RuntimeRange
from kedge_shared.errors import TrustError
from kedge_shared.ids import Count, Millis, Name, Sha256
from kedge_shared.manifest import FileRef, InputSpec, OutputSpec, Requires
from kedge_shared.policy import FRAME_LIMIT_BYTES
from kedge_shared.protocol import Unix

JOB_TYPE = "application/vnd.kedge.bench-job+json"
RESULT_TYPE = "application/vnd.kedge.bench-result+json"
#: A thousand class names fit.
JOB_LIMIT_BYTES = 128 * 1024
RESULT_LIMIT_BYTES = 16 * 1024
#: A signed job is an order to run code: it does not stay good for long.
JOB_LIFE_SECONDS = 86400

#: How often one thing goes into another.
Times = Annotated[float, Meta(gt=0)]
#: Where a job stands. ``lost``: boards took it and fell silent too often.
BenchState = Literal["waiting", "running", "done", "expired", "lost"]
#: Why nothing was measured; stable words.
BenchCode = Literal[
    "trust",  # signature, hash, expiry
    "replay",  # this board began the job before and did not finish
    "misfit",  # not for this board
    "engine",  # the runtime does not take it, or it fails on a frame
    "crash",  # the child died
    "hang",  # the child did not finish in time
    "memory",
    "disk",
    "network",
]


@dataclass(frozen=True, kw_only=True)
class BenchEngine:
    """One engine of a job.

    Attributes:
        name: What it is called in the result: ``built`` or ``float``.
        files: Of the engine, roles ``engine`` and ``engine-weights``.
    """

    name: Name
    files: Annotated[tuple[FileRef, ...], Meta(min_length=1, max_length=4)]


@dataclass(frozen=True, kw_only=True)
class FrameRef:
    """An uploaded frame: an image file by its hash.

    Attributes:
        sha256: Hexadecimal.
        length: Bytes.
    """

    sha256: Sha256
    length: Annotated[int, Meta(ge=1, le=FRAME_LIMIT_BYTES)]


@dataclass(frozen=True, kw_only=True)
class NoiseFrames:
    """Frames drawn on the board: nothing of anybody's data leaves the builder.

    Attributes:
        count: How many.
        height: Pixels.
        width: Pixels.
        seed: Of the draw.
    """

    height: Annotated[int, Meta(ge=16, le=4320)]
    width: Annotated[int, Meta(ge=16, le=7680)]
    count: Annotated[int, Meta(ge=1, le=16)] = 4
    seed: Count = 0


@dataclass(frozen=True, kw_only=True)
class BenchJob:
    """What a board of a class shall measure.

    Attributes:
        id: Made by who signs; a board runs it once.
        device_class: Which boards may take it.
        runtime: What loads the engines.
        requires: What the board must have.
        engines: Timed in turn; the first is the one whose memory is measured.
        input: What the engines are fed.
        output: How their output is read.
        threads: Threads an engine may use, and cores the child is pinned to.
        seconds: Time for the rounds.
        least_rounds: Rounds even if that takes longer.
        noise: Frames to draw, if none are given.
        frames: Uploaded frames.
        issued: Unix seconds.
        expires: Unix seconds; nothing is begun after it.
    """

    id: Name
    device_class: Name
    runtime: RuntimeRange
    requires: Requires
    engines: Annotated[tuple[BenchEngine, ...], Meta(min_length=1, max_length=4)]
    input: InputSpec
    output: OutputSpec
    threads: Annotated[int, Meta(ge=1, le=64)]
    issued: Unix
    expires: Unix
    noise: NoiseFrames
    frames: Annotated[tuple[FrameRef, ...], Meta(max_length=16)] = ()
    seconds: Annotated[float, Meta(gt=0, le=120)] = 6.0
    least_rounds: Annotated[int, Meta(ge=1, le=1000)] = 20

    @property
    def lengths(self) -> dict[str, int]:
        """Hash → bytes of everything that a worker fetches."""
        files = {file.sha256: file.length for engine in self.engines for file in engine.files}
        return files | {each.sha256: each.length for each in self.frames}


@dataclass(frozen=True)
class Speed:
    """How many times as fast one engine is as another.

    Attributes:
        ratio: Median over rounds of the other's frame time over its own.
        low: Lower end of the 95 % interval of that median.
        high: Upper end.
    """

    ratio: Times
    low: Times
    high: Times


@dataclass(frozen=True, kw_only=True)
class EngineFigures:
    """What was measured of one engine.

    Attributes:
        name: Of the job's engine.
        p50_ms: Median frame time, pre- and post-processing included.
        p95_ms: 95th percentile.
        engine_p50_ms: Median of the engine alone.
        rounds: Frames.
        memory_mb: Resident memory that load and first frame added, MiB; only of the engine that a
            fresh process loads first.
        outrun: How many times as fast as this one the job's first engine is, counted by the board
            from every round, which the answer has no room for; ``None`` for the first itself.
    """

    name: Name
    p50_ms: Millis
    p95_ms: Millis
    engine_p50_ms: Millis
    rounds: Annotated[int, Meta(ge=1)]
    memory_mb: Annotated[float, Meta(ge=0)] | None = None
    outrun: Speed | None = None


@dataclass(frozen=True, kw_only=True)
class BenchFailure:
    """Why nothing was measured.

    Attributes:
        code: Stable word.
        reason: The sentence a person reads.
    """

    code: BenchCode
    reason: Annotated[str, Meta(max_length=1000)]


@dataclass(frozen=True, kw_only=True)
class BenchResult:
    """A board's answer to a job: figures, or why there are none.

    Attributes:
        job: Which job.
        device: Who measured.
        machine: Processor, cores, VNNI.
        runtime: Version of the runtime, or empty when it is not on the board.
        measured: Unix seconds by the board's clock.
        engines: In the job's order; empty after a failure.
        failure: ``None`` when everything was measured.
    """

    job: Name
    device: Name
    machine: Annotated[str, Meta(max_length=300)]
    runtime: Annotated[str, Meta(max_length=100)]
    measured: Unix
    engines: Annotated[tuple[EngineFigures, ...], Meta(max_length=4)] = ()
    failure: BenchFailure | None = None


@dataclass(frozen=True, kw_only=True)
class BenchOffer:
    """The server's answer to a worker that asks for work.

    Attributes:
        id: Of the job, or empty when there is none.
        job: DSSE envelope of a :class:`BenchJob`, or ``None``.
        lease_seconds: How long the worker holds the job until it renews.
        next_seconds: When to ask again.
    """

    id: str
    job: dict[str, Any] | None
    lease_seconds: Annotated[float, Meta(gt=0)]
    next_seconds: Annotated[float, Meta(gt=0)]


@dataclass(frozen=True, kw_only=True)
class BenchTaken:
    """The server's answer to a result.

    Attributes:
        fresh: It was not known before.
    """

    fresh: bool


@dataclass(frozen=True, kw_only=True)
class BenchJobInfo:
    """Where a job stands.

    Attributes:
        id: Identifier.
        device_class: Which boards may take it.
        state: Where it stands.
        device: Board that took it last, or empty.
        attempts: How often it was taken.
        posted: Unix seconds.
        expires: Unix seconds.
        result: Once it is done.
    """

    id: Name
    device_class: Name
    state: BenchState
    device: str
    attempts: Count
    posted: float
    expires: Unix
    result: BenchResult | None = None


@dataclass(frozen=True, kw_only=True)
class Worker:
    """What stands on a worker's board and no server can change.

    Attributes:
        device_class: The one class it measures for.
        keys: Key id → public key, of those that may order a measurement.
        began: Jobs it began before.
        newest: Newest time it has seen in a job, Unix seconds: boards may think it is 1970.
    """

    device_class: str
    keys: Mapping[str, Key]
    began: Collection[str] = field(default_factory=frozenset)
    newest: int = 0


def open_job(envelope: dict[str, Any], worker: Worker, now: int) -> BenchJob:
    """Returns a job that this worker may run. Pure.

    Args:
        envelope: As the server hands it out.
        worker: Who asks.
        now: Unix seconds by the board's clock.

    Raises:
        TrustError: Not signed by a trusted key (``signature``), malformed, for another class
            (``class``), expired (``expired``), good for too long (``life``), or begun before
            (``replay``).
    """
    job = signing.unseal(
        envelope, JOB_TYPE, BenchJob, _key_of(envelope, worker.keys), limit_bytes=JOB_LIMIT_BYTES
    )
    if job.device_class != worker.device_class:
        raise TrustError("class", f"job is for {job.device_class}, not {worker.device_class}")
    if job.expires - job.issued > JOB_LIFE_SECONDS:
        raise TrustError("life", f"job is good for more than {JOB_LIFE_SECONDS // 3600} hours")
    if max(now, worker.newest) >= job.expires:
        raise TrustError("expired", f"job {job.id} has expired")
    if job.id in worker.began:
        raise TrustError("replay", f"this board began job {job.id} before")
    return job


def _key_of(envelope: dict[str, Any], keys: Mapping[str, Key]) -> Key:
    signatures = envelope.get("signatures")
    for each in signatures if isinstance(signatures, list) else ():
        keyid = each.get("keyid") if isinstance(each, dict) else None
        if isinstance(keyid, str) and keyid in keys:
            return keys[keyid]
    raise TrustError(
        "signature",
        "job is not signed by a key that this worker trusts",
        "name the public part of the builder's bench key in trusted_keys",
    )
