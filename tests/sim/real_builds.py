"""Builds that a real runtime loads: the demo's committed detector, one file a release."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np

from demo.shapes import CLASSES, scene
from kedge_agent.engine_file import open_engine
from kedge_shared import wire
from kedge_shared.device_classes import Budgets
from kedge_shared.golden import write_references
from kedge_shared.ids import sha256_hex
from kedge_shared.manifest import FileRef, Golden, InputSpec, OutputSpec, Requires, Shadow
from kedge_shared.policy import GoldenFrame, LabelledBox
from tests.shared import samples

SIZE = 160
_GOLDEN_FRAMES = 3
DEVICE_CLASS = "x86-onnxruntime"


@dataclass(frozen=True)
class Picture:
    """A scene as a file, with what is on it.

    Attributes:
        png: Its bytes.
        labels: Its objects.
    """

    png: bytes
    labels: tuple[LabelledBox, ...]


def pictures(count: int, seed: int = 3) -> list[Picture]:
    """Draws scenes of shapes that the detector knows."""
    rng, found = np.random.default_rng(seed), []
    for _ in range(count):
        image, shapes = scene(rng, SIZE)
        boxes = [(each, each.box(SIZE)) for each in shapes]
        labels = tuple(
            LabelledBox(label=CLASSES[each.label], x1=box[0], y1=box[1], x2=box[2], y2=box[3])
            for each, box in boxes
            if box is not None
        )
        found.append(Picture(cv2.imencode(".png", image)[1].tobytes(), labels))
    return found


def write_builds(out: Path, model: Path, releases: Sequence[str], kilobytes: int = 0) -> list[Path]:
    """Writes what ``kedge build`` would for each release, and returns the folders.

    All releases are the same detector under other bytes: what is tried is the way, not the model.

    Args:
        out: Where to.
        model: ONNX of :data:`SIZE` (demo.engines.export).
        releases: Versions; the n-th has the release counter 10 + n.
        kilobytes: Ballast in each engine, so that a download takes its time.
    """
    golden = pictures(_GOLDEN_FRAMES)
    references = _references(model, golden)
    return [
        _write(out / release, release, 10 + at, _named(model, release, kilobytes), golden,
               references)
        for at, release in enumerate(releases)
    ]  # fmt: skip


def _references(model: Path, golden: Sequence[Picture]) -> bytes:
    detector = open_engine(model, classes=CLASSES, size=SIZE)
    rows = {}
    for each in golden:
        image = cv2.imdecode(np.frombuffer(each.png, np.uint8), cv2.IMREAD_COLOR)
        rows[sha256_hex(each.png)] = detector.detect(np.asarray(image, np.uint8)).rows
    detector.close()
    return write_references(rows)


def _named(model: Path, release: str, kilobytes: int) -> bytes:
    """Returns the model under other bytes: a note in its metadata."""
    import onnx

    loaded = onnx.load(str(model))
    note = loaded.metadata_props.add()
    blocks = (hashlib.sha512(f"{release} {at}".encode()).hexdigest() for at in range(kilobytes * 8))
    note.key, note.value = f"release {release}", "".join(blocks)
    return bytes(loaded.SerializeToString())


def _write(
    out: Path,
    release: str,
    counter: int,
    engine: bytes,
    golden: Sequence[Picture],
    references: bytes,
) -> Path:
    (out / "policy" / "golden").mkdir(parents=True)
    frames = []
    for at, each in enumerate(golden):
        (out / "policy" / "golden" / f"{at}.png").write_bytes(each.png)
        frames.append(GoldenFrame(name=f"{at}.png", sha256=sha256_hex(each.png),
                                  length=len(each.png), labels=each.labels))  # fmt: skip
    policy = replace(samples.policy(), golden=tuple(frames), accuracy_floor=0.5)
    (out / "policy" / "policy.json").write_bytes(wire.encode_pretty(policy))
    folder = out / DEVICE_CLASS
    folder.mkdir()
    (folder / "model.onnx").write_bytes(engine)
    (folder / "golden.json").write_bytes(references)
    manifest = replace(
        samples.manifest(), release=release, release_counter=counter, requires=Requires(),
        files=(
            FileRef(role="engine", name="model.onnx", sha256=sha256_hex(engine),
                    length=len(engine)),
            FileRef(role="golden-references", name="golden.json", sha256=sha256_hex(references),
                    length=len(references)),
        ),
        input=InputSpec(height=SIZE, width=SIZE),
        output=OutputSpec(head="yolo-v8", classes=CLASSES),
        golden=Golden(references=sha256_hex(references)),
        # Times and agreement are judged by other tests; a busy machine must not answer for them.
        budgets=Budgets(), shadow=Shadow(must_hold="nothing"),
    )  # fmt: skip
    (folder / "manifest.json").write_bytes(wire.encode_pretty(manifest))
    return out
