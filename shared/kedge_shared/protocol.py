"""What goes over the wire between a board and the server.

Assignments are signed by the director (the server), reports and enrolments by the device, each in
a DSSE envelope (kedge_shared.signing), so that what was signed is the very bytes that are read.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from msgspec import Meta

from kedge_shared.histogram import Histogram
from kedge_shared.ids import Count, Name, Sha256
from kedge_shared.manifest import MANIFEST_LIMIT_BYTES
from kedge_shared.phases import Phase
from kedge_shared.windows import WindowSpec

ASSIGNMENT_TYPE = "application/vnd.kedge.assignment+json"
REPORT_TYPE = "application/vnd.kedge.report+json"
ENROLMENT_TYPE = "application/vnd.kedge.enrolment+json"

ASSIGNMENT_LIMIT_BYTES = 16 * 1024
REPORT_LIMIT_BYTES = 64 * 1024
#: Reports in one request.
REPORT_BATCH = 50

Intent = Literal["install", "revert", "hold"]
Unix = Annotated[int, Meta(ge=0)]
Evidence = Annotated[dict[str, Any], Meta(max_length=64)]

#: Header of a poll: newest assignment counter the board has accepted. A server restored from a
#: backup learns from it what it has forgotten, and signs above.
HEADER_COUNTER = "X-Kedge-Counter"
#: Header of a poll's answer, 200 and 304 alike: seconds until the next poll.
HEADER_INTERVAL = "X-Kedge-Next-Poll"
#: Header of a poll's answer: newest timestamp version of the image repository.
HEADER_TIMESTAMP = "X-Kedge-Timestamp-Version"
#: Header of a poll's answer: for the next signed request (boards may think it is 1970).
HEADER_NONCE = "X-Kedge-Nonce"


@dataclass(frozen=True, kw_only=True)
class DeviceFacts:
    """What a board is; gathered by its runtimes' ``probe()`` and the system.

    Attributes:
        arch: ``platform.machine()``.
        cpu_flags: Those of /proc/cpuinfo that matter to a runtime.
        memory_mb: Total memory, MiB.
        runtimes: Runtime → version, of those that import on the board.
        sm: CUDA compute capability times ten, or ``None``.
        agent: Version of the agent.
        board: What the board calls itself, for people.
        soc: System on chip, such as ``tegra234``; empty on computers that have none.
        module: Part of a family's board, such as NVIDIA's ``p3767-0005``.
        l4t: Release of Jetson Linux.
        jetpack: NVIDIA's name for it.
        python: That the agent runs on.
        drivers: Kernel driver (``nvidia``, ``rknpu``) → version; empty is: it is there, and the
            agent's user may not read which.
        libraries: Vendor's library on the disk → version, whether or not the agent loads it.
        cuda: Majors of CUDA whose runtime can be loaded there, the one that is taken first; an
            agent that tells none tells it in ``libraries`` alone.
        lean_runtimes: Releases of TensorRT whose lean runtime is on the disk.
        gpus: Makers of the GPUs on the bus: ``intel``, ``nvidia``, ``amd``.
        gpu_memory_mb: A discrete GPU's own memory, MiB, or ``None``.
        ways: What the agent can do besides loading an engine as it was sent: ``plans`` (choose
            one of several), ``lean`` (version-compatible ones), ``build``, ``fallback``.
    """

    arch: str
    memory_mb: float
    runtimes: dict[str, str]
    cpu_flags: tuple[str, ...] = ()
    sm: int | None = None
    agent: str = ""
    board: str = ""
    soc: str = ""
    module: str = ""
    l4t: str = ""
    jetpack: str = ""
    python: str = ""
    drivers: dict[str, str] = field(default_factory=dict)
    libraries: dict[str, str] = field(default_factory=dict)
    cuda: tuple[int, ...] = ()
    lean_runtimes: tuple[str, ...] = ()
    gpus: tuple[str, ...] = ()
    gpu_memory_mb: float | None = None
    ways: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Enrolment:
    """A device's request to be one of the fleet; signed with the key it brings.

    Attributes:
        name: What the device calls itself; unique in the fleet.
        device_class: Pinned in the device's configuration.
        public_key: securesystemslib key dictionary, with its ``keyid``.
        facts: What the board is.
        tags: For selectors.
        serves: It runs the agent; a board that only measures is in no rollout.
        renews: It fetches short-lived access tokens by signing nonces (kedge_shared.access), and
            is given no lasting one.
    """

    name: Name
    device_class: Name
    public_key: dict[str, Any]
    facts: DeviceFacts
    tags: dict[str, str] = field(default_factory=dict)
    serves: bool = True
    renews: bool = False


@dataclass(frozen=True, kw_only=True)
class Enrolled:
    """The server's answer to an enrolment.

    Attributes:
        device: Identifier of the device.
        token: Bearer token for polls, downloads and reports; shown once. Empty for a board that
            renews.
    """

    device: Name
    token: str


@dataclass(frozen=True, kw_only=True)
class ManifestRef:
    """The TUF target that an assignment is about.

    Attributes:
        path: Target path.
        sha256: Of the manifest.
        length: Bytes of the manifest.
    """

    path: Annotated[str, Meta(max_length=300)]
    sha256: Sha256
    length: Annotated[int, Meta(ge=1, le=MANIFEST_LIMIT_BYTES)]


@dataclass(frozen=True, kw_only=True)
class Assignment:
    """What one device shall run, as the director says.

    Attributes:
        device: Whom it is for.
        device_key_id: The device's key; a cloned name with another key is not meant.
        workload: The model's place on the device.
        deployment: Identifier that reports refer to.
        manifest: The build; ``None`` only with intent ``hold``.
        intent: ``install`` a release, ``revert`` to one it had, ``hold`` what it has.
        rollout: Which rollout says so.
        stage: Zero-based stage of that rollout.
        epoch: Grows when the director's key is rotated.
        counter: Grows with every new assignment to this device.
        issued: Unix seconds.
        expires: Unix seconds; nothing new is accepted after it.
        retry_of: Deployment that an operator wants tried again despite quarantine.
        window: When the rollout lets boards be worked on, in their own time; ``None`` is always.
            An older agent does not read it and goes by its own window alone.
    """

    device: Name
    device_key_id: str
    workload: Name
    deployment: str
    manifest: ManifestRef | None
    intent: Intent
    rollout: str
    stage: Count
    epoch: Count
    counter: Count
    issued: Unix
    expires: Unix
    retry_of: str | None = None
    window: WindowSpec | None = None


@dataclass(frozen=True, kw_only=True)
class PollAnswer:
    """Body of a poll that has news. A 304 has none and never extends freshness.

    Attributes:
        assignment: DSSE envelope of an :class:`Assignment`, or ``None`` before the first.
        timestamp_version: Newest timestamp version of the image repository.
        next_poll_seconds: When to ask again.
        nonce: For the next signed request.
    """

    assignment: dict[str, Any] | None
    timestamp_version: Count
    next_poll_seconds: Annotated[float, Meta(gt=0)]
    nonce: str


#: Why a deployment stands where it stands; stable words, counted by gates and shown to operators.
VerdictCode = Literal[
    "ok",
    "latency",  # slower than its budget or than the active engine
    "accuracy",  # label score under the floor, or worse than the active engine
    "fidelity",  # not what the builder recorded
    "crash",  # died, hung or blew up
    "trust",  # signature, hash, counter, expiry
    "misfit",  # not for this board
    "memory",
    "disk",
    "network",
    "undecided",
    "quarantined",
    "superseded",
    "operator",
]


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """A decision with what it rests on.

    Attributes:
        code: Stable word.
        reason: The sentence an operator reads.
        evidence: Figures behind it.
        cause: ``harm``, ``undecided`` or ``environment`` where the deployment failed.
        stopped_in: Phase that refused or rolled back.
    """

    code: VerdictCode
    reason: Annotated[str, Meta(max_length=1000)] = ""
    evidence: Evidence = field(default_factory=dict)
    cause: Literal["harm", "undecided", "environment"] | None = None
    stopped_in: Phase | None = None


#: Equal bins of confidence over 0..1; counts by bin can be added over windows and boards.
CONFIDENCE_BINS = 20


@dataclass(frozen=True, kw_only=True)
class BoardReadings:
    """What a board's own sensors say at the end of a window. ``None`` is: not measured here.

    Attributes:
        cpu: Share of all cores' time that was used in the window, 0..1.
        gpu: Share of the GPU's time, 0..1.
        npu: Share of the NPU's time, 0..1.
        memory_available_mb: What can be taken without swapping, MiB.
        disk_free_mb: Of the state directory's file system, MiB.
        temperatures_c: Sensor → degrees Celsius.
        throttled: What holds the board back, in words; empty is: nothing does.
    """

    cpu: float | None = None
    gpu: float | None = None
    npu: float | None = None
    memory_available_mb: float | None = None
    disk_free_mb: float | None = None
    temperatures_c: Annotated[dict[str, float], Meta(max_length=64)] = field(default_factory=dict)
    throttled: tuple[str, ...] | None = None


@dataclass(frozen=True, kw_only=True)
class Window:
    """Counts and histograms of the live loop since the last report.

    Attributes:
        started: Unix seconds.
        seconds: Length of the window.
        frames: Frames that reached the sink.
        dropped: Frames overwritten before the engine took them.
        errors: Frames on which the engine failed.
        detections: Class name → count.
        latency_ms: Frame time, milliseconds.
        confidence: Detections by confidence, ``CONFIDENCE_BINS`` equal bins; empty where the
            runner does not count them.
        swap_gap_ms: Longest time between two frames since the last swap, milliseconds; ``None``
            before the first.
        board: What the board's sensors say, or ``None``.
    """

    started: Unix
    seconds: float
    frames: Count = 0
    dropped: Count = 0
    errors: Count = 0
    detections: dict[str, int] = field(default_factory=dict)
    latency_ms: Histogram = field(default_factory=Histogram)
    confidence: Annotated[tuple[int, ...], Meta(max_length=CONFIDENCE_BINS)] = ()
    swap_gap_ms: float | None = None
    board: BoardReadings | None = None


@dataclass(frozen=True, kw_only=True)
class Report:
    """What a device says of itself; idempotent by (device, boot_id, seq).

    Attributes:
        device: Who.
        boot_id: Start of the updater it belongs to.
        seq: Grows by one with each report of that start.
        created: Unix seconds by the device's clock; for people only.
        deployment: The deployment it is about; empty for telemetry alone.
        workload: The model's place on the device.
        phase: Where the deployment stands.
        engine: Hash of the engine that serves now, or empty.
        release: Release that serves now, or empty.
        verdict: Why.
        window: Telemetry, if any.
        lost: Reports that this board's spool has dropped unsent, ever.
        attestation: What the board runs after a confirmation or rollback: DSSE envelope
            (kedge_shared.attestation). In the board's journal it is the statement, not signed yet.
        facts: What the board is, where that has changed: an update of its system, another agent.
    """

    device: Name
    boot_id: Annotated[str, Meta(max_length=64)]
    seq: Count
    created: Unix
    deployment: str
    workload: Name
    phase: Phase
    engine: str
    release: str
    verdict: Verdict
    window: Window | None = None
    lost: Count = 0
    attestation: dict[str, Any] | None = None
    facts: DeviceFacts | None = None
