"""Real engines on real videos, judged by the very code that a board runs."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.common import Row
from kedge_agent.detector import Detections
from kedge_agent.evidence.book import EvidenceBook
from kedge_agent.evidence.verdicts import judge_shadow
from kedge_agent.patience import ProbationSettings
from kedge_shared.device_classes import Budgets, RuntimeRange
from kedge_shared.manifest import (
    FileRef,
    Golden,
    InputSpec,
    Manifest,
    OutputSpec,
    Provenance,
    Requires,
)
from kedge_shared.vision import Frame, decode, prepare

#: Between two videos as if the camera had been turned.
_TURN_SECONDS = 60.0


@dataclass(frozen=True)
class Film:
    """Sampled frames and when they were, seconds."""

    frames: list[Frame]
    times: list[float]


def film(videos: Sequence[Path], stride: int) -> Film:
    """Reads every ``stride``-th frame of several videos, one after the other."""
    import cv2

    frames: list[Frame] = []
    times: list[float] = []
    start = 0.0
    for path in videos:
        reader = cv2.VideoCapture(str(path))
        fps, at = reader.get(cv2.CAP_PROP_FPS) or 30.0, 0
        while True:
            read, image = reader.read()
            if not read:
                break
            if at % stride == 0:
                frames.append(np.asarray(image, dtype=np.uint8))
                times.append(start + at / fps)
            at += 1
        reader.release()
        start += at / fps + _TURN_SECONDS
    return Film(frames, times)


def damaged(model: Any, noise: float, seed: int) -> Any:
    """Returns a copy whose convolutions carry noise, in their own standard deviations."""
    import copy

    import torch

    torch.manual_seed(seed)
    model = copy.deepcopy(model)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.dim() == 4 and "dfl" not in name:
                weight.add_(noise * weight.std() * torch.randn_like(weight))
    return model


def watch(
    model: Any, names: tuple[str, ...], size: int, frames: Sequence[Frame]
) -> list[Detections]:
    """Exports a model and lets ONNX Runtime say what is on each frame."""
    import onnxruntime as ort

    from kedge_builder.models.export import to_onnx

    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(
        to_onnx(model, size), options, providers=["CPUExecutionProvider"]
    )
    spec, output = InputSpec(height=size, width=size), OutputSpec(head="yolo-v8", classes=names)
    found: list[Detections] = []
    for frame in frames:
        began = time.perf_counter()
        batch, place = prepare(frame, spec)
        raw = np.asarray(session.run(None, {"images": batch})[0], dtype=np.float32)
        rows = decode(raw, place, output)
        found.append(Detections(rows, names, (time.perf_counter() - began) * 1000, finite=True))
    return found


def manifest(names: tuple[str, ...], size: int) -> Manifest:
    """Returns the newer engine's manifest, every term of the shadow by default."""
    digest = "0" * 64
    return Manifest(
        schema=1, model="replay", release="2", release_counter=2, device_class="replay",
        runtime=RuntimeRange(name="onnxruntime", range=">=1"), requires=Requires(),
        files=(FileRef(role="engine", name="a.onnx", sha256=digest, length=1),
               FileRef(role="golden-references", name="b", sha256=digest, length=1)),
        input=InputSpec(height=size, width=size), output=OutputSpec(head="yolo-v8", classes=names),
        golden=Golden(references=digest), budgets=Budgets(),
        provenance=Provenance(weights_sha256=digest, data_sha256=digest, recipe={}, tools={}),
    )  # fmt: skip


def judged(name: str, old: list[Detections], new: list[Detections], times: Sequence[float],
           terms: Manifest) -> Iterator[Row]:  # fmt: skip
    """Returns what a board would have said, and after how many of the sampled frames."""
    book, settings = EvidenceBook(terms, times[0]), ProbationSettings()
    spoke, verdict = len(times), "undecided"
    for at, (before, after) in enumerate(zip(old, new, strict=True)):
        book.add(before, after, times[at])
        ruling = judge_shadow(book.evidence(0, 1, times[at]), terms, settings, ended=True)
        if ruling.event is not None and ruling.verdict.code != "undecided":
            spoke, verdict = at + 1, "rolls back" if ruling.verdict.cause else "confirms"
            break
    for at in range(spoke, len(times)):
        book.add(old[at], new[at], times[at])
    whole = book.evidence(0, 1, times[-1])
    yield Row(name=f"{name}: {verdict} after", value=spoke, unit="frames")
    yield Row(name=f"{name}: objects in all", value=whole.tracks, unit="objects")
    yield Row(name=f"{name}: missed of the older's, gained", value=whole.missed, unit="share",
              against=whole.gained)  # fmt: skip


def replay(
    videos: Sequence[Path], weights: Path, other: Path | None, size: int, stride: int,
    noises: Sequence[float],
) -> Iterator[Row]:  # fmt: skip
    """Judges a model against itself with more and more noise, and against another one."""
    from kedge_builder.models.weights import load

    seen = film(videos, stride)
    trained = load(weights)
    names = trained.classes
    old = watch(trained.model, names, size, seen.frames)
    terms = manifest(names, size)
    for noise in noises:
        new = watch(damaged(trained.model, noise, seed=1), names, size, seen.frames)
        yield from judged(f"noise {noise:g}", old, new, seen.times, terms)
    if other is not None:
        larger = load(other)
        new = watch(larger.model, larger.classes, size, seen.frames)
        yield from judged(other.stem, old, new, seen.times, manifest(larger.classes, size))
        back = manifest(names, size)
        yield from judged(f"from {other.stem} back", new, old, seen.times, back)
