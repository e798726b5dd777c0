"""A candidate's first run: what is measured in the preflight child."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence

from kedge_agent import limits
from kedge_agent.blobs import BlobStore
from kedge_agent.detector import Detections, Detector, golden_frames, load_detector, open_slot
from kedge_agent.errors import Misfit
from kedge_agent.local_protocol import PreflightJob, PreflightResult, Ratio
from kedge_agent.racing import looks, paired_ratio, settled
from kedge_agent.runtimes.registry import RUNTIMES
from kedge_shared.detections import Array, Score, compare, label_score
from kedge_shared.golden import REFERENCES_LIMIT_BYTES, label_array, read_references
from kedge_shared.manifest import Manifest
from kedge_shared.pairing import Pairing
from kedge_shared.policy import ModelPolicy
from kedge_shared.vision import Frame


def examine(job: PreflightJob, store: BlobStore) -> PreflightResult:
    """Loads the candidate (and the active engine beside it) and measures both.

    Args:
        job: What to examine.
        store: Holds its files.

    Raises:
        KedgeError: It does not verify or does not load.
    """
    opened = open_slot(job.candidate, store)
    frames = golden_frames(opened.policy, store)
    before, started = limits.resident_mb(), time.perf_counter()
    try:
        candidate = load_detector(job.candidate, store, RUNTIMES, job.threads)
    except Misfit as error:
        return PreflightResult(ok=False, misfit=True, error=str(error))
    load_ms = (time.perf_counter() - started) * 1000
    found = [candidate.detect(each) for each in frames]
    memory = limits.resident_mb() - before + candidate.gpu_memory_mb
    active = _beside(job, store)
    others = [active.detect(each) for each in frames] if active else None
    limit = opened.manifest.budgets.latency_ratio
    candidate_ms, active_ms, ratio = race(candidate, active, frames, limit, job)
    references = read_references(
        store.read_verified(opened.manifest.golden.references, REFERENCES_LIMIT_BYTES)
    )
    return PreflightResult(
        ok=True,
        fidelity=fidelity(found, references, opened.manifest, opened.policy),
        label_score=score(found, opened.policy),
        active_label_score=score(others, opened.policy) if others else None,
        agreement=agreement(others, found, opened.manifest) if others else None,
        zero_scores=sees_nothing(found, opened.policy),
        non_finite=sum(not each.finite for each in found),
        candidate_ms=candidate_ms,
        active_ms=active_ms,
        ratio=ratio,
        load_ms=load_ms,
        memory_mb=max(0.0, memory),
        frames=len(frames),
    )


def _beside(job: PreflightJob, store: BlobStore) -> Detector | None:
    """Returns the active engine; ``None`` where there is none, or this board runs it no more.

    A board whose TensorRT was changed has nothing to compare with, and must get a new engine.
    """
    if job.active is None:
        return None
    try:
        return load_detector(job.active, store, RUNTIMES, job.threads)
    except Misfit:
        return None


def fidelity(
    found: Sequence[Detections],
    references: dict[str, Array],
    manifest: Manifest,
    policy: ModelPolicy,
) -> float | None:
    """Returns the share of the builder's detections found again, of those it was sure of."""
    near = manifest.golden.tolerances
    total = Score()
    for frame, each in zip(policy.golden, found, strict=True):
        reference = references.get(frame.sha256)
        if reference is not None:
            sure = reference[reference[:, 4] >= manifest.output.conf + near.confidence]
            total += compare(sure, each.rows, iou=near.iou, confidence=near.confidence)
    return total.recall


def score(found: Sequence[Detections], policy: ModelPolicy) -> float | None:
    """Returns the label score: F1 against the golden labels."""
    labels = [
        label_array(frame, each.classes) for frame, each in zip(policy.golden, found, strict=True)
    ]
    return label_score([each.rows for each in found], labels, confidence=policy.label_conf)


def agreement(
    old: Sequence[Detections], new: Sequence[Detections], manifest: Manifest
) -> float | None:
    """Returns the share of the active engine's golden objects that the candidate sees too."""
    total, pairing = Score(), Pairing(manifest.output, manifest.shadow)
    for before, after in zip(old, new, strict=True):
        total += pairing(before, after).score
    return total.recall


def sees_nothing(found: Sequence[Detections], policy: ModelPolicy) -> bool:
    """Says whether the engine is blind although the frames have labels."""
    labelled = any(frame.labels for frame in policy.golden)
    return labelled and not any(len(each.rows) for each in found)


def race(
    candidate: Detector,
    active: Detector | None,
    frames: Sequence[Frame],
    limit: float | None,
    job: PreflightJob,
) -> tuple[float, float, Ratio | None]:
    """Times both engines on the same frames, round by round, until the ratio tells.

    Args:
        candidate: On trial.
        active: It serves, or ``None``.
        frames: (h, w, 3) BGR uint8 each.
        limit: Ratio that is allowed, or ``None``: then nothing is to be told.
        job: Says how many rounds and how long.

    Returns:
        Median milliseconds of each, 0 and ``None`` without an active engine.
    """
    times: tuple[list[float], list[float]] = ([], [])
    if active is None:
        alone = [candidate.detect(frames[at % len(frames)]).ms for at in range(job.rounds)]
        return statistics.median(alone), 0.0, None
    started = time.perf_counter()
    ratio = None
    for upto in looks(job.rounds):
        for at in range(len(times[0]), upto):
            for turn in (at % 2, 1 - at % 2):
                engine = (candidate, active)[turn]
                times[turn].append(engine.detect(frames[at // 2 % len(frames)]).ms)
        ratio = paired_ratio(*times)
        # The next look costs as much again as all before it.
        if settled(ratio, limit) or 2 * (time.perf_counter() - started) > job.race_seconds:
            break
    return statistics.median(times[0]), statistics.median(times[1]), ratio
