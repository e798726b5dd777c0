"""What operators, CI and the builder exchange with the server, as frozen dataclasses.

The server turns them into its OpenAPI document, the client decodes answers into them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from msgspec import Meta

from kedge_shared.ids import Count, Name, Sha256
from kedge_shared.phases import Phase
from kedge_shared.protocol import DeviceFacts, Verdict
from kedge_shared.rollouts import (
    GateSpec,
    LimitSpec,
    RetrySpec,
    RolloutSpec,
    SequentialSpec,
    StageSpec,
)

#: What is asked for stands in a module of its own; callers find it here too.
__all__ = ["GateSpec", "LimitSpec", "RetrySpec", "RolloutSpec", "SequentialSpec", "StageSpec"]

RolloutState = Literal[
    "proposed", "running", "paused", "completed", "halted", "stopped", "recalled"
]
StageState = Literal["waiting", "running", "asking", "widened", "passed", "failed"]
GateVerdict = Literal["pass", "fail", "undecided"]


@dataclass(frozen=True, kw_only=True)
class StageInfo:
    """Where a stage stands.

    Attributes:
        index: Zero-based.
        percent: Of the spec; ``None`` for a stage by count or selector.
        title: What people read.
        state: Where it stands.
        devices: Cohort, this stage's own devices and those of the stages before.
        healthy: Confirmed.
        failed: Refused or rolled back for harm, or silent.
        undecided: Rolled back undecided or for the environment: neither.
        pending: Not final yet.
        verdict: Of the gate.
        reason: The sentence an operator reads.
    """

    index: Count
    percent: float | None
    state: StageState
    devices: Count
    healthy: Count
    failed: Count
    undecided: Count
    pending: Count
    verdict: GateVerdict
    reason: str
    title: str = ""


@dataclass(frozen=True, kw_only=True)
class DecisionInfo:
    """A stored decision, and what its evidence says today.

    Attributes:
        id: Decisions count up.
        stage: Zero-based.
        at: Unix seconds.
        verdict: As it was said.
        reason: As it was said.
        devices: Whose facts it rests on.
        again: Verdict of the same evidence, judged now.
        again_reason: Its sentence.
        same: Whether all of it is the same.
    """

    id: Count
    stage: Count
    at: float
    verdict: GateVerdict
    reason: str
    devices: Count
    again: GateVerdict
    again_reason: str
    same: bool


@dataclass(frozen=True, kw_only=True)
class PlanStage:
    """What a stage would be.

    Attributes:
        title: What people read.
        classes: Device class → boards that it brings.
        devices: Their names.
        notes: What its gate can and cannot say of so many boards.
        earliest_seconds: It begins no sooner after the start.
    """

    title: str
    classes: dict[str, int]
    devices: tuple[str, ...]
    notes: tuple[str, ...]
    earliest_seconds: float


@dataclass(frozen=True, kw_only=True)
class PlanInfo:
    """A rollout that has not been started.

    Attributes:
        model: Model.
        release: Release.
        stages: In order.
        skipped: Device → why it gets nothing.
    """

    model: Name
    release: Name
    stages: tuple[PlanStage, ...]
    skipped: dict[str, str]


@dataclass(frozen=True, kw_only=True)
class RolloutInfo:
    """A rollout.

    Attributes:
        id: Identifier.
        model: Model.
        release: Release.
        state: Where it stands.
        recall: Goes back to an older release.
        reason: Why it stands there.
        created: Unix seconds.
        finished: Unix seconds, or ``None``.
        stages: In order.
        created_by: Who made it.
        approvals: Of a rollout that wants two people's yes: who has said it to what it asks now.
    """

    id: str
    model: Name
    release: Name
    state: RolloutState
    recall: bool
    reason: str
    created: float
    finished: float | None
    stages: tuple[StageInfo, ...]
    created_by: str = ""
    approvals: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class DeploymentInfo:
    """One release on one device.

    Attributes:
        id: Identifier that assignment and reports carry.
        rollout: Its rollout.
        device: Its device.
        stage: Zero-based stage that brought it.
        release: Release.
        phase: As last reported.
        verdict: As last reported.
        silent: Counted as failed because nothing final was heard in time.
        assigned: Unix seconds.
        updated: Unix seconds of the last report about it.
    """

    id: str
    rollout: str
    device: Name
    stage: Count
    release: Name
    phase: Phase
    verdict: Verdict
    silent: bool
    assigned: float
    updated: float


@dataclass(frozen=True, kw_only=True)
class DeviceInfo:
    """An enrolled board.

    Attributes:
        id: Its name.
        device_class: What it is.
        tags: For selectors.
        facts: As it enrolled.
        release: Release that serves on it, as last reported; empty if none.
        engine: Hash of the engine that serves.
        phase: Of its last deployment.
        last_seen: Unix seconds of its last poll or report, or ``None``.
        latency_p95_ms: Of its last telemetry window, or ``None``.
        frames: Frames it reported in all.
        serves: It is in rollouts; otherwise it only measures (`kedge bench-worker`).
        fingerprint: Of its key.
        revoked: Unix seconds since when it is refused, or ``None``.
        suspected_clone: Unix seconds since when two boards seem to have its key, or ``None``.
        suspicion: What was seen.
    """

    id: Name
    device_class: Name
    tags: dict[str, str]
    facts: DeviceFacts
    release: str
    engine: str
    phase: Phase
    last_seen: float | None
    latency_p95_ms: float | None
    frames: Count
    serves: bool = True
    fingerprint: str = ""
    revoked: float | None = None
    suspected_clone: float | None = None
    suspicion: str = ""


@dataclass(frozen=True, kw_only=True)
class DeviceAssignment:
    """What a device would be told if it polled now.

    Attributes:
        device: Its name.
        assignment: DSSE envelope of a :class:`kedge_shared.protocol.Assignment`, or ``None``.
    """

    device: Name
    assignment: dict[str, Any] | None


@dataclass(frozen=True, kw_only=True)
class BuildInfo:
    """One build of a release.

    Attributes:
        device_class: What it is for.
        manifest_path: TUF target path.
        manifest_sha256: Hash of the manifest.
        engine: Hash of the engine's main file.
        size_bytes: All files.
        verdict: The builder's.
        overrides: Budgets missed and accepted.
        provenance: Hash of the signed statement of its origin, an artifact; empty: none.
        report: Hash of the published part of the builder's report, an artifact; empty: none.
    """

    device_class: Name
    manifest_path: str
    manifest_sha256: Sha256
    engine: Sha256
    size_bytes: Count
    verdict: str
    overrides: tuple[str, ...]
    provenance: str = ""
    report: str = ""


@dataclass(frozen=True, kw_only=True)
class ReleaseInfo:
    """A release: a build per device class.

    Attributes:
        model: Model.
        release: Version.
        release_counter: Order.
        published: Unix seconds.
        builds: By device class.
        taken_back: Its owners list none of its builds any more (``kedge yank``).
    """

    model: Name
    release: Name
    release_counter: Count
    published: float
    builds: tuple[BuildInfo, ...]
    taken_back: bool = False


@dataclass(frozen=True, kw_only=True)
class EnrolmentToken:
    """A one-time token; shown once, stored hashed.

    Attributes:
        token: The secret.
        expires: Unix seconds.
    """

    token: str
    expires: float


@dataclass(frozen=True, kw_only=True)
class TokenRequest:
    """Asks for enrolment tokens.

    Attributes:
        count: How many.
        ttl_seconds: How long they hold.
    """

    count: Annotated[int, Meta(ge=1, le=1000)] = 1
    ttl_seconds: Annotated[int, Meta(ge=60, le=30 * 86400)] = 86400


@dataclass(frozen=True, kw_only=True)
class RepositoryState:
    """Versions of the image repository's metadata after a publication.

    Attributes:
        root: Version.
        targets: Version.
        snapshot: Version.
        timestamp: Version.
        models: Role of a model whose team signs for itself → version.
    """

    root: Count
    targets: Count
    snapshot: Count
    timestamp: Count
    models: dict[str, Count] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Problem:
    """Body of every error answer.

    Attributes:
        error: What is wrong.
        mend: What to do about it.
    """

    error: str
    mend: str = ""
