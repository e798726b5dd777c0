"""What updater and runner say to each other over the local socket.

One JSON message a line, a request and its answer in turn. The runner never sees the server, the
updater never imports a runtime; they share the state directory and these messages. Both sides
open with :class:`Hello`: a runner of another version is restarted, not guessed at.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from kedge_agent.evidence.summary import Evidence
from kedge_shared.ids import Sha256
from kedge_shared.protocol import Window
from kedge_shared.resolver import Way

VERSION = 1
#: A line is never longer: evidence is sums, not samples.
LINE_LIMIT_BYTES = 1024 * 1024

SlotName = Literal["active", "candidate", "previous"]


class Form(msgspec.Struct, frozen=True, kw_only=True):
    """What this board runs of a build, where that is not the engine as it was signed.

    Attributes:
        way: How it gets at it (kedge_shared.resolver).
        runtime: What loads it.
        file: Hash of what is loaded; of a plan to be built, of the ONNX until it is.
        timing_cache: Hash of timings to build with, or ``None``.
        seal: Hash of the seal of what was built; ``None`` until it is, and for other ways.
    """

    way: Way
    runtime: str
    file: Sha256
    timing_cache: Sha256 | None = None
    seal: Sha256 | None = None


class Slot(msgspec.Struct, frozen=True, kw_only=True):
    """One engine that was verified and accepted; everything is found by hash in the blob store.

    Attributes:
        release: Version of the model.
        manifest: Hash of the manifest's bytes.
        policy: Hash of the model policy's bytes that accepted it.
        engine: Hash of the engine's main file, for people and reports.
        form: What of the build is loaded; ``None`` is the engine as it was signed.
    """

    release: str
    manifest: Sha256
    policy: Sha256
    engine: Sha256
    form: Form | None = None


class Hello(msgspec.Struct, frozen=True, tag="hello"):
    """Opens a connection."""

    version: int = VERSION


class Status(msgspec.Struct, frozen=True, tag="status"):
    """Asks for :class:`RunnerState`."""


class TakeWindow(msgspec.Struct, frozen=True, tag="take_window"):
    """Asks for the telemetry since the last such request; answered with :class:`Telemetry`."""


class LoadCandidate(msgspec.Struct, frozen=True, tag="load_candidate"):
    """Load beside the active engine, off the live path, at nice 19; answered when it is warm."""

    slot: Slot


class StartShadow(msgspec.Struct, frozen=True, tag="start_shadow"):
    """Run candidate (before the swap) or previous (after it) on sampled live frames.

    Attributes:
        share: Share of the frame time that the shadow may take, 0..1.
        stills: No two frames show the same objects: each counts once, as a track would.
    """

    share: float = 0.1
    stills: bool = False


class Swap(msgspec.Struct, frozen=True, tag="swap"):
    """Make the candidate serve from the next frame on; answered after its first live frame."""


class RollBack(msgspec.Struct, frozen=True, tag="roll_back"):
    """Make the previous engine serve again; answered after its first live frame."""


class Drop(msgspec.Struct, frozen=True, tag="drop"):
    """Stop shadowing, close an engine and give its memory back."""

    slot: SlotName


Request = Hello | Status | TakeWindow | LoadCandidate | StartShadow | Swap | RollBack | Drop


SourcePhase = Literal["waiting", "live", "finished", "failed"]


class SourceState(msgspec.Struct, frozen=True, kw_only=True):
    """Where one source stands.

    Attributes:
        name: Of the source.
        phase: ``waiting`` to be opened (again) or for its first frame, ``live``, ``finished``
            (came to its end), ``failed`` (its budget of restarts is spent; looked at seldom).
        frames: Frames it gave.
        dropped: Of these, overwritten before the engine took them.
        unreadable: Empty or corrupt ones; they are not in ``frames``.
        reopened: Times it was opened again after it failed or hung.
        why: What was wrong last; empty while it is well.
    """

    name: str
    phase: SourcePhase
    frames: int = 0
    dropped: int = 0
    unreadable: int = 0
    reopened: int = 0
    why: str = ""


class SinkState(msgspec.Struct, frozen=True, kw_only=True):
    """Where one sink stands.

    Attributes:
        name: Its kind.
        taken: Results it took.
        dropped: Results it was too slow for.
        errors: Results it failed on.
        why: What was wrong last; empty while it is well.
    """

    name: str
    taken: int = 0
    dropped: int = 0
    errors: int = 0
    why: str = ""


class RunnerState(msgspec.Struct, frozen=True, kw_only=True, tag="runner_state"):
    """Where the runner stands.

    Attributes:
        version: Of this protocol.
        pid: Process.
        active: Engine that serves, or ``None``.
        candidate: Engine loaded beside it before a swap.
        previous: Engine kept ready after a swap.
        fell_back: The runner went back to the previous engine by itself, and why; empty if not.
        evidence: Of shadowing, before or after the swap.
        frames: Frames that reached the sink since the start.
        dropped: Frames overwritten before the engine took them.
        errors: Frames on which the engine failed.
        last_frame_age_s: Seconds since the last frame reached the sink.
        swap_gap_ms: Longest time between two sink frames since the last swap, milliseconds.
        switch_us: Time the pointer switch took, microseconds.
        deferred: There is no room for two engines: candidate or previous is not loaded, and the
            switch takes a gap.
        late: Frames that the older engine answered because the serving one was late.
        frame_ms: Median time of the newest live frames, milliseconds; 0 without any.
        sources: Each of them.
        sinks: Each of them.
    """

    pid: int
    version: int = VERSION
    active: Slot | None = None
    candidate: Slot | None = None
    previous: Slot | None = None
    fell_back: str = ""
    evidence: Evidence | None = None
    frames: int = 0
    dropped: int = 0
    errors: int = 0
    last_frame_age_s: float = 0.0
    swap_gap_ms: float = 0.0
    switch_us: float = 0.0
    deferred: bool = False
    late: int = 0
    frame_ms: float = 0.0
    sources: tuple[SourceState, ...] = ()
    sinks: tuple[SinkState, ...] = ()


class Telemetry(msgspec.Struct, frozen=True, tag="telemetry"):
    """Answer to :class:`TakeWindow`."""

    window: Window


class Done(msgspec.Struct, frozen=True, tag="done"):
    """The request was carried out."""

    state: RunnerState


class Failed(msgspec.Struct, frozen=True, tag="failed"):
    """The request was not carried out; the live loop goes on as before.

    Attributes:
        code: ``memory``, ``crash``, ``trust``, ``state`` (nothing to swap to), ``version``.
        reason: One line.
        evidence: Figures.
    """

    code: str
    reason: str
    evidence: dict[str, Any] = {}


Answer = RunnerState | Telemetry | Done | Failed


class PreflightJob(msgspec.Struct, frozen=True, kw_only=True):
    """What the preflight child is given on standard input.

    Attributes:
        blobs: The blob store's folder.
        candidate: The engine on trial.
        active: The engine that serves, or ``None`` for a first install.
        threads: Threads an engine may use.
        rounds: Paired timing rounds before the first look; more follow while they do not tell.
        race_seconds: No further rounds are begun that would take longer in all.
        memory_mb: Memory that the child may use, MiB; 0 is no limit.
        cpu_seconds: Processor time that it may use; 0 is no limit.
        sealer: This board's public key, which seals what was built here.
    """

    blobs: str
    candidate: Slot
    active: Slot | None
    threads: int
    rounds: int = 30
    race_seconds: float = 30.0
    memory_mb: float = 0.0
    cpu_seconds: float = 0.0
    sealer: dict[str, Any] | None = None


class Ratio(msgspec.Struct, frozen=True, kw_only=True):
    """Frame time of the candidate over that of the active engine.

    Attributes:
        median: Over the rounds.
        low: Lower end of the median's interval.
        high: Upper end; ``None`` where the rounds are too few for one.
        rounds: How many.
    """

    median: float
    low: float
    high: float | None
    rounds: int


class PreflightResult(msgspec.Struct, frozen=True, kw_only=True):
    """What the preflight child measured; the updater judges (kedge_agent.decisions).

    Attributes:
        ok: Whether the engine loaded and answered every golden frame.
        error: Why not.
        short: It was for want of memory: that is the board's, not the engine's.
        misfit: The board is not what the plan was made for: no runtime has seen it.
        fidelity: Share of the builder's references found again, or ``None`` without references.
        label_score: F1 on the golden labels, or ``None``.
        active_label_score: The same of the active engine, or ``None``.
        agreement: Share of the active engine's golden objects that the candidate sees too, or
            ``None``.
        zero_scores: The engine saw nothing at all on frames that have labels.
        non_finite: Frames with NaN or infinity.
        candidate_ms: Median frame time, milliseconds.
        active_ms: The same of the active engine, in the same rounds, or 0.
        ratio: Candidate over active, round by round, or ``None`` without an active engine.
        load_ms: Loading and warm-up, milliseconds.
        memory_mb: Resident memory the candidate added, MiB.
        frames: Golden frames.
        sandbox: Walls that stood around the child (kedge_agent.sandbox).
    """

    ok: bool
    error: str = ""
    short: bool = False
    misfit: bool = False
    fidelity: float | None = None
    label_score: float | None = None
    active_label_score: float | None = None
    agreement: float | None = None
    zero_scores: bool = False
    non_finite: int = 0
    candidate_ms: float = 0.0
    active_ms: float = 0.0
    ratio: Ratio | None = None
    load_ms: float = 0.0
    memory_mb: float = 0.0
    frames: int = 0
    sandbox: tuple[str, ...] = ()


class Slots(msgspec.Struct, frozen=True, kw_only=True):
    """The runner's view of the journal: ``slots.json``, replaced whole by the updater.

    Attributes:
        active: Engine to serve after a start.
        previous: Engine to go back to.
        probation: The active engine is on probation: load previous too, count starts.
        deployment: What brought the active engine.
    """

    active: Slot | None = None
    previous: Slot | None = None
    probation: bool = False
    deployment: str = ""


SLOTS_FILE = "slots.json"
STARTS_FILE = "runner-starts.json"
#: Starts in a row without a long run between them, which the supervisor counts in memory.
STARTS_ENV = "KEDGE_STARTS"
