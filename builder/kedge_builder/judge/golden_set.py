"""Golden frames: proposing a model policy, and recording what an engine says on its frames."""

from __future__ import annotations

import math
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from kedge_builder.data.datasets import Data, Sample
from kedge_builder.measure.engines import Engine
from kedge_shared import wire
from kedge_shared.detections import Array, Score, compare, label_score
from kedge_shared.errors import InputError
from kedge_shared.golden import label_array
from kedge_shared.ids import sha256_hex
from kedge_shared.manifest import InputSpec, OutputSpec, Tolerances
from kedge_shared.policy import (
    FRAME_LIMIT_BYTES,
    POLICY_LIMIT_BYTES,
    GoldenFrame,
    LabelledBox,
    ModelPolicy,
    read_policy,
)
from kedge_shared.vision import Frame, decode, prepare

#: Enough to tell a swapped class or a dead head; accuracy in points is the builder's matter.
FRAMES = 24
LABEL_CONF = 0.25
#: Label score under float's own that a policy proposes as its floor.
_FLOOR_MARGIN = 0.15
#: Room for kernels that round otherwise, under the fidelity measured with literal ones.
_FIDELITY_MARGIN = 0.07


@dataclass(frozen=True)
class GoldenSet:
    """A model policy with its frames.

    Attributes:
        policy: The policy.
        folder: Where the frames lie.
        frames: In the policy's order.
        proposed: Whether this build proposed it.
    """

    policy: ModelPolicy
    folder: Path
    frames: tuple[Frame, ...]
    proposed: bool


def load_policy(path: Path, model: str) -> GoldenSet:
    """Reads a policy and checks its frames.

    Raises:
        InputError: Unreadable, of another model, or a frame is missing or altered.
    """
    policy = read_policy(wire.read_limited(path, "model policy", POLICY_LIMIT_BYTES))
    if policy.model != model:
        raise InputError(f"policy {path} is of model {policy.model}, not {model}")
    folder = path.parent / "golden"
    for each in policy.golden:
        data = wire.read_limited(folder / each.name, "golden frame", FRAME_LIMIT_BYTES)
        if sha256_hex(data) != each.sha256:
            raise InputError(f"golden frame {folder / each.name} is not the one of its policy")
    return GoldenSet(policy, folder, _read_frames(policy, folder), proposed=False)


def propose(data: Data, model: str, folder: Path) -> GoldenSet:
    """Picks labelled gate images as golden frames; the floor comes from :func:`floor_under`.

    Frames are taken in turn for the class that has fewest objects so far.

    Args:
        data: Its gate images are drawn from.
        model: Of the policy.
        folder: Where frames are copied to.

    Raises:
        InputError: No gate image has labels.
    """
    folder.mkdir(parents=True)
    frames = tuple(_golden_frame(each, data, folder) for each in _pick(data))
    if not frames:
        raise InputError("no 'val' image has labels", "golden frames need some")
    policy = ModelPolicy(schema=1, model=model, version=1, accuracy_floor=0.0, golden=frames)
    return GoldenSet(policy, folder, _read_frames(policy, folder), proposed=True)


def floor_under(score: float | None) -> float:
    """Returns the accuracy floor proposed for a float model's label score."""
    return max(0.0, math.floor(((score or 0.0) - _FLOOR_MARGIN) * 100) / 100)


def record(engine: Engine, golden: GoldenSet, given: InputSpec, read: OutputSpec) -> list[Array]:
    """Returns an engine's detections per golden frame."""
    found = []
    for frame in golden.frames:
        batch, place = prepare(frame, given)
        found.append(decode(engine.infer(batch), place, read))
    return found


def score(found: Sequence[Array], golden: GoldenSet, classes: tuple[str, ...]) -> float | None:
    """Returns the label score that a board will compute too."""
    labels = [label_array(each, classes) for each in golden.policy.golden]
    return label_score(found, labels, confidence=golden.policy.label_conf)


def tolerances(references: Sequence[Array], literal: Sequence[Array], conf: float) -> Tolerances:
    """Sets how near a board must come, from what another kernel on this machine does.

    Boards of one class round differently (with or without VNNI, other thread counts); the same
    file without graph optimizations stands for them.

    Args:
        references: Detections with the runtime's own kernels.
        literal: Detections without graph optimizations.
        conf: Reporting threshold.
    """
    given = Tolerances()
    total = Score()
    for each, other in zip(references, literal, strict=True):
        sure = each[each[:, 4] >= conf + given.confidence]
        total += compare(sure, other, iou=given.iou, confidence=given.confidence)
    share = 1.0 if total.recall is None else total.recall
    return Tolerances(share=max(0.5, math.floor((share - _FIDELITY_MARGIN) * 100) / 100))


def write_policy(golden: GoldenSet, out: Path) -> None:
    """Writes a proposed policy beside the builds, with its frames."""
    (out / "golden").mkdir(parents=True)
    for each in golden.policy.golden:
        shutil.copyfile(golden.folder / each.name, out / "golden" / each.name)
    (out / "policy.json").write_bytes(wire.encode_pretty(golden.policy))


def _pick(data: Data) -> list[Sample]:
    left = {s.sha256: s for s in data.gate if s.labels.is_file() and s.labels.stat().st_size}
    classes = {key: set(each.truth(1, 1)[:, 0].tolist()) for key, each in left.items()}
    have: dict[float, int] = {}
    picked: list[Sample] = []
    while left and len(picked) < FRAMES:
        # Most objects of the classes that are rarest so far; the hash breaks ties.
        best = min(left, key=lambda k: (min((have.get(c, 0) for c in classes[k]), default=999), k))
        for label in classes[best]:
            have[label] = have.get(label, 0) + 1
        picked.append(left.pop(best))
    return picked


def _golden_frame(sample: Sample, data: Data, folder: Path) -> GoldenFrame:
    content = sample.image.read_bytes()
    suffix = ".jpg" if sample.image.suffix.lower() in {".jpg", ".jpeg"} else ".png"
    name = f"{sample.sha256[:16]}{suffix}"
    if sample.image.suffix.lower() not in {".jpg", ".jpeg", ".png"}:
        import cv2

        content = cv2.imencode(".png", sample.frame())[1].tobytes()
    (folder / name).write_bytes(content)
    height, width = sample.frame().shape[:2]
    boxes = tuple(
        LabelledBox(
            label=data.classes[int(row[0])],
            x1=round(float(row[1]), 2),
            y1=round(float(row[2]), 2),
            x2=round(float(row[3]), 2),
            y2=round(float(row[4]), 2),
        )
        for row in sample.truth(height, width)
    )
    return GoldenFrame(name=name, sha256=sha256_hex(content), length=len(content), labels=boxes)


def _read_frames(policy: ModelPolicy, folder: Path) -> tuple[Frame, ...]:
    return tuple(
        Sample(folder / each.name, folder / "none", each.sha256).frame() for each in policy.golden
    )
