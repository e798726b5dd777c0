"""An engine with its pre- and post-processing: what is swapped, as a whole.

Input size, classes and decoding belong to the engine, so all of them may change over a swap.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from kedge_agent import hardware, limits
from kedge_agent.admission import Isolation
from kedge_agent.blobs import BlobStore, VerifiedBlob
from kedge_agent.building.forms import check, loadable
from kedge_agent.errors import EngineError, Misfit
from kedge_agent.hosting.host import HostedEngine
from kedge_agent.local_protocol import Slot
from kedge_agent.runtimes.base import (
    Dispatching,
    Engine,
    EngineSpec,
    Hosting,
    Punctual,
    Runtime,
    Weighed,
)
from kedge_shared.detections import Array
from kedge_shared.manifest import MANIFEST_LIMIT_BYTES, FileRef, FileRole, Manifest, read_manifest
from kedge_shared.plans import Plan
from kedge_shared.policy import FRAME_LIMIT_BYTES, POLICY_LIMIT_BYTES, ModelPolicy, read_policy
from kedge_shared.vision import Frame, Preparer, all_finite, decode

_WARM_UP_FRAMES = 3


@dataclass(frozen=True)
class Detections:
    """What an engine says of one frame.

    Attributes:
        rows: (n, 6) x1 y1 x2 y2 in pixels of the frame, confidence, class index.
        classes: Names of the classes.
        ms: Time for this frame, milliseconds, pre- and post-processing included.
        finite: No NaN or infinity in the engine's output.
    """

    rows: Array
    classes: tuple[str, ...]
    ms: float
    finite: bool


class Detector:
    """A loaded engine and how frames go in and detections come out.

    Args:
        engine: Loaded.
        spec: What it is fed and how it is read.
        slot: Which engine it is.

    Attributes:
        slot: Which engine it is.
    """

    def __init__(self, engine: Engine, spec: EngineSpec, slot: Slot) -> None:
        self._engine, self._spec, self._prepare = engine, spec, Preparer(spec.input)
        self._in_time = engine.infer_in_time if isinstance(engine, Punctual) else engine.infer
        self.slot = slot

    @property
    def gpu_memory_mb(self) -> float:
        """Memory of the GPU that its engine says it takes, MiB."""
        return self._engine.memory_mb if isinstance(self._engine, Weighed) else 0.0

    def detect(self, frame: Frame) -> Detections:
        """Runs one frame, (h, w, 3) BGR uint8.

        Raises:
            EngineError: The engine failed, or its output is not what the manifest says.
        """
        return self._detect(frame, self._engine.infer)

    def detect_in_time(self, frame: Frame) -> Detections:
        """Runs one frame where another engine stands by.

        Raises:
            EngineLate: The engine is not done in about its usual time.
            EngineError: As for :meth:`detect`.
        """
        return self._detect(frame, self._in_time)

    def _detect(self, frame: Frame, infer: Callable[[Array], Array]) -> Detections:
        started = time.perf_counter()
        try:
            batch, place = self._prepare(frame)
            raw = infer(batch)
            finite = all_finite(raw)
            rows = decode(raw if finite else np.nan_to_num(raw), place, self._spec.output)
        except (EngineError, MemoryError):
            raise
        # Boundary: OpenCV and numpy below raise what they like, and the loop outlives it.
        except Exception as error:  # noqa: BLE001
            raise EngineError(" ".join(str(error).split())[:200]) from None
        ms = (time.perf_counter() - started) * 1000
        return Detections(rows, self._spec.output.classes, ms, finite)

    def close(self) -> None:
        """Frees the engine."""
        self._engine.close()


@dataclass(frozen=True)
class Opened:
    """A slot's documents, read from verified blobs.

    Attributes:
        manifest: Of the build.
        policy: Of the model.
    """

    manifest: Manifest
    policy: ModelPolicy


def open_slot(slot: Slot, store: BlobStore) -> Opened:
    """Reads a slot's manifest and policy, re-hashed.

    Raises:
        TrustError: A file was altered on the board.
        StorageError: A file is missing.
    """
    manifest = read_manifest(store.read_verified(slot.manifest, MANIFEST_LIMIT_BYTES))
    policy = read_policy(store.read_verified(slot.policy, POLICY_LIMIT_BYTES))
    return Opened(manifest, policy)


def isolation_of(name: str, runtimes: Mapping[str, Runtime], wanted: Isolation | None) -> Isolation:
    """Returns where an engine of a runtime is to live: as is wanted, else as the runtime says."""
    runtime = runtimes.get(name)
    if wanted is not None and not isinstance(runtime, Hosting):
        return wanted
    return "in-process" if runtime is None else runtime.isolation


def load_detector(
    slot: Slot,
    store: BlobStore,
    runtimes: Mapping[str, Runtime],
    threads: int,
    isolation: Isolation | None = "in-process",
) -> Detector:
    """Loads an engine from verified bytes and warms it up on golden frames.

    A load counts only when the engine has answered: a warm-up that fails is a load that failed.

    Args:
        slot: Which engine.
        store: Holds its files.
        runtimes: By name.
        threads: Threads it may use.
        isolation: Where it lives; ``None`` is where its runtime wants it.

    Raises:
        TrustError: A file was altered on the board; no runtime was called.
        StorageError: A file is missing.
        Misfit: The board is not, or no more, what its plan was made for; no runtime saw it.
        EngineError: The runtime is missing or does not take the engine.
    """
    opened = open_slot(slot, store)
    wanted = loadable(opened.manifest, slot.form, store)
    runtime = runtimes.get(wanted.runtime)
    if runtime is None:
        raise EngineError(f"runtime {wanted.runtime} is not known to this agent")
    frames = golden_frames(opened.policy, store, most=_WARM_UP_FRAMES)
    blobs = open_files(wanted.files, store)
    try:
        check(wanted, blobs, lambda: found.version if (found := runtime.probe()) else "")
        loads = dispatched(runtime, wanted.plan)
    except BaseException:
        for each in blobs.values():
            release(each)
        raise
    where = isolation_of(wanted.runtime, runtimes, isolation)
    return started(loads, blobs, opened.manifest, slot, frames, threads, where)


def dispatched(runtime: Runtime, plan: Plan | None) -> Runtime:
    """Returns what loads a plan: for another release's, that release's lean runtime.

    Raises:
        Misfit: It is not on the board.
    """
    if plan is None or not plan.version_compatible:
        return runtime
    library = hardware.lean_runtime(plan.version)
    if library is None or not isinstance(runtime, Dispatching):
        raise Misfit(f"the board lacks TensorRT's lean runtime {plan.version}")
    return runtime.through(str(library))


def started(
    runtime: Runtime,
    blobs: Mapping[FileRole, VerifiedBlob],
    spec: EngineSpec,
    slot: Slot,
    frames: Sequence[Frame],
    threads: int,
    isolation: Isolation = "in-process",
) -> Detector:
    """Loads an engine, lets go of its sealed files and warms it up.

    Raises:
        EngineError: The runtime does not take it, or it fails on a frame.
    """
    try:
        engine = _load(runtime, blobs, spec, threads, isolation)
    finally:
        # Runtimes copy or map what they need; the sealed files themselves are done with.
        for each in blobs.values():
            release(each)
    detector = Detector(engine, spec, slot)
    try:
        for frame in frames:
            if not detector.detect(frame).finite:
                raise EngineError("engine gives NaN while it warms up")
    except BaseException:
        detector.close()
        raise
    return detector


def _load(
    runtime: Runtime,
    blobs: Mapping[FileRole, VerifiedBlob],
    spec: EngineSpec,
    threads: int,
    isolation: Isolation,
) -> Engine:
    if isolation == "in-process" or isinstance(runtime, Hosting):
        return runtime.load(blobs, spec, threads=threads)
    # What a GPU's driver reserves of the address space is more than any board has.
    spare = 0.0 if runtime.on_gpu else limits.spare_memory_mb()
    lean = runtime.lean if isinstance(runtime, Dispatching) else ""
    return HostedEngine(runtime.name, blobs, spec, threads=threads, memory_mb=spare, lean=lean)


def golden_frames(policy: ModelPolicy, store: BlobStore, most: int | None = None) -> list[Frame]:
    """Returns the policy's golden frames, verified and decoded.

    Raises:
        TrustError: A frame was altered on the board.
        EngineError: A frame is no image.
    """
    import cv2

    found: list[Frame] = []
    for each in policy.golden[:most]:
        data = store.read_verified(each.sha256, FRAME_LIMIT_BYTES)
        image = cv2.imdecode(np.frombuffer(data, dtype=np.uint8), cv2.IMREAD_COLOR)
        if image is None:
            raise EngineError(f"golden frame {each.name} is no image")
        found.append(np.asarray(image, dtype=np.uint8))
    return found


def open_files(files: Sequence[FileRef], store: BlobStore) -> dict[FileRole, VerifiedBlob]:
    """Copies an engine's files into sealed memory, each checked on the way.

    Raises:
        TrustError: A file was altered on the board; none stays open.
        StorageError: A file is missing.
    """
    blobs: dict[FileRole, VerifiedBlob] = {}
    try:
        for each in files:
            blobs[each.role] = store.open_verified(each.sha256, each.length)
    except BaseException:
        for opened in blobs.values():
            opened.close()
        raise
    return blobs


def release(blob: VerifiedBlob) -> None:
    """Lets go of a file that a runtime has loaded."""
    try:
        blob.close()
    except BufferError:
        # A runtime keeps a view of the bytes (OpenVINO maps its weights): the mapping lives as
        # long as that view, and goes with the engine.
        return
