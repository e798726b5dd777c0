"""The manifest: the signed description of one build, and the only thing a board believes of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Literal

from msgspec import Meta

from kedge_shared import wire
from kedge_shared.device_classes import Budgets, RuntimeRange
from kedge_shared.errors import InputError
from kedge_shared.ids import Count, Millis, Name, Sha256, Share
from kedge_shared.plans import OnDevice, Plan, TimingCache

SCHEMA = 1
MANIFEST_LIMIT_BYTES = 256 * 1024
#: Nothing larger is a model file we would put on a board.
FILE_LIMIT_BYTES = 4 * 1024**3

FileRole = Literal["engine", "engine-weights", "golden-references", "plan", "timing-cache"]
#: A release may bring several of these: one for each kind of board within the class.
_SEVERAL = frozenset({"plan", "timing-cache"})
Head = Literal["yolo-v8", "yolo-end2end"]
Length = Annotated[int, Meta(ge=1, le=FILE_LIMIT_BYTES)]
Text = Annotated[str, Meta(max_length=500)]
Range = Annotated[str, Meta(max_length=100)]


@dataclass(frozen=True, kw_only=True)
class FileRef:
    """Immutable bytes, named by what they are.

    Attributes:
        role: What the file is for; ``engine-weights`` is OpenVINO's ``.bin``, ``plan`` an engine
            compiled beforehand, ``timing-cache`` what makes one compile faster.
        name: File name, for people.
        sha256: Hexadecimal.
        length: Bytes.
    """

    role: FileRole
    name: Name
    sha256: Sha256
    length: Length


@dataclass(frozen=True, kw_only=True)
class Requires:
    """What a board must have. Empty or ``None`` is: anything.

    Attributes:
        arch: ``platform.machine()`` values.
        sm: CUDA compute capability times ten, for TensorRT plans.
        cpu_flags: Flags of /proc/cpuinfo.
        memory_mb: Memory of the board, MiB.
        soc: Systems on chip, such as ``tegra234``.
        l4t: Range of Jetson Linux.
        python: Range of the Python that the agent runs on.
        drivers: Kernel driver (``nvidia``, ``rknpu``) → range.
    """

    arch: tuple[str, ...] = ()
    sm: int | None = None
    cpu_flags: tuple[str, ...] = ()
    memory_mb: Millis | None = None
    soc: tuple[str, ...] = ()
    l4t: Range = ""
    python: Range = ""
    drivers: Annotated[dict[str, Range], Meta(max_length=8)] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Fallback:
    """What carries out the build's engine file where no plan fits: slower, and said to be so.

    Attributes:
        runtime: What loads it instead.
        requires: What a board must have for that.
    """

    runtime: RuntimeRange
    requires: Requires = Requires()


@dataclass(frozen=True, kw_only=True)
class InputSpec:
    """What the engine is fed.

    Attributes:
        height: Pixels.
        width: Pixels.
        layout: Always batch, channel, row, column, float32.
        color: Channel order.
        scale: Factor on 0..255.
        letterbox: Aspect kept, rest filled with ``fill``; otherwise stretched.
        fill: Grey level of the padding, 0..255.
    """

    height: Annotated[int, Meta(ge=32, le=4096)]
    width: Annotated[int, Meta(ge=32, le=4096)]
    layout: Literal["nchw"] = "nchw"
    color: Literal["rgb"] = "rgb"
    scale: float = 1 / 255
    letterbox: bool = True
    fill: Annotated[int, Meta(ge=0, le=255)] = 114


@dataclass(frozen=True, kw_only=True)
class OutputSpec:
    """How the engine's output is read.

    Attributes:
        head: ``yolo-v8``: one tensor (1, 4 + classes, anchors), boxes cx cy w h in input pixels;
            ``yolo-end2end``: one tensor (1, n, 6), x1 y1 x2 y2 in input pixels, confidence, class
            index, nothing left to suppress.
        classes: Names in the order of the scores.
        conf: Confidence below which a detection is not reported.
        iou: Overlap above which non-maximum suppression drops the weaker box; unused end to end.
    """

    head: Head
    classes: Annotated[tuple[str, ...], Meta(min_length=1, max_length=10_000)]
    conf: Share = 0.25
    iou: Share = 0.7


@dataclass(frozen=True, kw_only=True)
class Tolerances:
    """When the board's detections agree with the builder's on the golden frames.

    Attributes:
        iou: Overlap two boxes must have to be the same object.
        confidence: Largest difference of confidence.
        share: Share of the references that must be found again, 0..1.
    """

    iou: Share = 0.9
    confidence: Share = 0.05
    share: Share = 0.9


@dataclass(frozen=True, kw_only=True)
class Golden:
    """Recorded outputs on the model policy's golden frames.

    Attributes:
        references: SHA-256 of the file with role ``golden-references``.
        tolerances: How near the board must come.
    """

    references: Sha256
    tolerances: Tolerances = Tolerances()


@dataclass(frozen=True, kw_only=True)
class Shadow:
    """What must hold between candidate and active engine on the same live frames.

    The default: of the objects that the active engine sees, the candidate loses none on balance,
    and none of its classes. That it sees more, or knows further classes, is no harm.

    Attributes:
        must_hold: ``recall``: what the active engine sees, the candidate sees too; it may see
            more (the default). ``agreement``: neither may see what the other does not.
        min_agreement: Share of the active engine's objects that must be seen whatever is gained.
        class_map: Class name of the active engine → class name of the candidate, where renamed.
        classes: Classes that must hold, by their names in the candidate; empty is: every class of
            the active engine, also one that the candidate has no more.
        disagreement: Share of objects on which two equally good engines may differ, both ways
            together: half of it may be missed.
        max_loss: Net loss of recall that must be ruled out before the candidate is confirmed.
    """

    must_hold: Literal["recall", "agreement", "nothing"] = "recall"
    min_agreement: Share = 0.7
    class_map: dict[str, str] = field(default_factory=dict)
    classes: tuple[str, ...] = ()
    disagreement: Share = 0.05
    max_loss: Share = 0.1


@dataclass(frozen=True, kw_only=True)
class Measured:
    """One figure that was measured, and where.

    Attributes:
        what: For example ``latency_p95_ms`` or ``map50_95``.
        value: In the unit that ``what`` ends with.
        machine: Processor and runtime that it was measured on.
    """

    what: Name
    value: float
    machine: Text


@dataclass(frozen=True, kw_only=True)
class Override:
    """A budget that was missed and accepted by a person, on the record.

    Attributes:
        budget: Field of :class:`Budgets`, or ``undecided``.
        reason: Why it was accepted.
        measured: What was measured.
        limit: What the budget says.
    """

    budget: Name
    reason: Annotated[str, Meta(min_length=3, max_length=500)]
    measured: float | None = None
    limit: float | None = None


@dataclass(frozen=True, kw_only=True)
class Provenance:
    """Where the build came from.

    Attributes:
        weights_sha256: Trained weights.
        data_sha256: Digest over the names and hashes of images and labels used.
        recipe: Options of the build.
        tools: Tool → version.
    """

    weights_sha256: Sha256
    data_sha256: Sha256
    recipe: dict[str, str]
    tools: dict[str, str]


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """The signed description of a build: one release for one device class.

    Attributes:
        schema: Version of this structure.
        model: Named line of work.
        release: Version of the model, for people.
        release_counter: Order of releases; compared with the policy's ``min_release_counter``.
        device_class: What the build is for.
        runtime: What loads it.
        requires: What the board must have.
        files: Everything the board downloads.
        input: What the engine is fed.
        output: How it is read.
        golden: Recorded outputs.
        budgets: The class's limits, judged again on the board.
        shadow: What must hold on live frames.
        measured: The builder's figures.
        overrides: Budgets missed and accepted.
        provenance: Where it came from.
        verdict: The builder's verdict; ``undecided`` needs the policy's leave.
        plans: Engines compiled beforehand: of the engine, or the engine itself.
        timing_caches: For boards that compile it themselves.
        on_device: What compiling it on the board takes.
        fallback: What else may carry out the engine, or ``None``.
    """

    schema: Annotated[int, Meta(ge=1, le=SCHEMA)]
    model: Name
    release: Name
    release_counter: Count
    device_class: Name
    runtime: RuntimeRange
    requires: Requires
    files: Annotated[tuple[FileRef, ...], Meta(min_length=2, max_length=16)]
    input: InputSpec
    output: OutputSpec
    golden: Golden
    budgets: Budgets
    provenance: Provenance
    shadow: Shadow = Shadow()
    measured: tuple[Measured, ...] = ()
    overrides: tuple[Override, ...] = ()
    verdict: Literal["pass", "overridden", "undecided"] = "pass"
    plans: Annotated[tuple[Plan, ...], Meta(max_length=12)] = ()
    timing_caches: Annotated[tuple[TimingCache, ...], Meta(max_length=12)] = ()
    on_device: OnDevice = field(default_factory=OnDevice)
    fallback: Fallback | None = None

    def file(self, role: FileRole) -> FileRef:
        """Returns the one file with ``role``.

        Raises:
            InputError: There is none.
        """
        for each in self.files:
            if each.role == role:
                return each
        raise InputError(f"manifest of {self.model} {self.release} lists no file for {role}")

    @property
    def engine_files(self) -> tuple[FileRef, ...]:
        """The files that the runtime loads."""
        return tuple(each for each in self.files if each.role in {"engine", "engine-weights"})

    @property
    def engine_hash(self) -> str:
        """SHA-256 of the engine's main file: what reports and quarantine name."""
        return self.file("engine").sha256

    @property
    def target_path(self) -> str:
        """Path of this manifest among the TUF targets."""
        return target_path(self.model, self.release, self.device_class)


def target_path(model: str, release: str, device_class: str) -> str:
    """Returns the TUF target path of a manifest; the first two segments are the delegation."""
    return f"models/{model}/{release}/{device_class}/manifest.json"


def read_manifest(data: bytes | memoryview) -> Manifest:
    """Decodes a manifest and checks what the field types cannot say.

    Raises:
        InputError: Malformed, too large, roles missing or twice, or something named that is not
            among its files.
    """
    if len(data) > MANIFEST_LIMIT_BYTES:
        raise InputError(f"manifest is larger than {MANIFEST_LIMIT_BYTES} bytes")
    manifest = wire.decode(data, Manifest, "manifest")
    roles = [each.role for each in manifest.files if each.role not in _SEVERAL]
    if len(set(roles)) != len(roles):
        raise InputError("manifest lists two files for one role")
    if manifest.file("golden-references").sha256 != manifest.golden.references:
        raise InputError("manifest's golden references are not among its files")
    manifest.file("engine")
    _check_plans(manifest)
    return manifest


def _check_plans(manifest: Manifest) -> None:
    files = {each.sha256: each.role for each in manifest.files}
    for plan in manifest.plans:
        if files.get(plan.file) not in {"engine", "plan"}:
            raise InputError(f"manifest's plan {plan.file[:12]} is not among its files")
        if plan.runtime != manifest.runtime.name:
            raise InputError(
                f"manifest's plan is for {plan.runtime}, its runtime is {manifest.runtime.name}"
            )
    for cache in manifest.timing_caches:
        if files.get(cache.file) != "timing-cache":
            raise InputError(f"manifest's timing cache {cache.file[:12]} is not among its files")
