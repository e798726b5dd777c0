"""What a frame costs before and after its engine: ``python benchmarks/prepost.py [--json]``.

Letterbox of a 1080p frame to 640 px, and decode with suppression of 8,400 anchors x 80 classes.
Times are of one thread and of its processor alone: what else the machine does is not in them.
Beside each, in turn, what Ultralytics does for the same: its letterbox and the division by 255; its
suppression and scaling.

Without weights the output is drawn: objects as a street has, each seen by a dozen anchors. With
``--weights`` and ``--images`` it is a real detector's on real photographs.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import cycle, islice
from pathlib import Path

import cv2
import numpy as np

#: Run by its path, only this folder is searched for modules.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.common import Row, as_object, as_table
from kedge_builder.measure import machine
from kedge_builder.models.torchvision_ops import ensure_torchvision_ops
from kedge_shared.detections import Array
from kedge_shared.manifest import InputSpec, OutputSpec
from kedge_shared.vision import Frame, Preparer, decode, prepare

SIZE, CLASSES, ANCHORS = 640, 80, 8400
DECODE_MS, LETTERBOX_MS = 3.0, 2.5
#: Confidence and overlap on the board, and for mAP, where a box may be several classes.
LIVE, VALIDATING = (0.25, 0.45), (0.001, 0.7)

Step = Callable[[], object]


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--rounds", type=int, default=300)
    parser.add_argument("--weights", type=Path, help="of a detector of 80 classes")
    parser.add_argument("--images", type=Path, help="folder of photographs")
    given = parser.parse_args()
    if (given.weights is None) != (given.images is None):
        parser.error("--weights and --images go together")
    cv2.setNumThreads(1)
    ensure_torchvision_ops()
    import torch

    torch.set_num_threads(1)
    raws = list(_real(given.weights, given.images) if given.weights else _drawn())
    rows = [*_letterbox(given.rounds), *_decode(raws, given.rounds, "real" if given.weights else
            "drawn")]  # fmt: skip
    told = machine.describe()
    print(as_object(told, rows) if given.json else as_table(rows, "Ultralytics"))


def _letterbox(rounds: int) -> list[Row]:
    from ultralytics.data.augment import LetterBox

    frame = np.random.default_rng(0).integers(0, 256, (1080, 1920, 3), dtype=np.uint8)
    ours, theirs = Preparer(InputSpec(height=SIZE, width=SIZE)), LetterBox((SIZE, SIZE), auto=False)

    def peer() -> object:
        return np.ascontiguousarray(theirs(image=frame)[None, ..., ::-1].transpose(0, 3, 1, 2)) / (
            np.float32(255)
        )

    return _rows(f"letterbox 1080p to {SIZE}", lambda: ours(frame), peer, rounds, LETTERBOX_MS)


def _decode(raws: Sequence[Array], rounds: int, kind: str) -> list[Row]:
    live = _pair(raws, LIVE, several=False)
    validating = _pair(raws, VALIDATING, several=True)
    size = f"{ANCHORS} x {CLASSES}, {kind}"
    return [
        *_rows(f"decode, NMS, {size}", *live, rounds, DECODE_MS),
        *_rows(f"decode, NMS for mAP, {size}", *validating, rounds, None),
    ]


def _pair(raws: Sequence[Array], at: tuple[float, float], *, several: bool) -> tuple[Step, Step]:
    """Returns our step and Ultralytics', each over one output after the other."""
    import torch
    from ultralytics.utils import nms, ops

    spec = OutputSpec(head="yolo-v8", classes=tuple(map(str, range(CLASSES))))
    _, place = prepare(np.zeros((1080, 1920, 3), np.uint8), InputSpec(height=SIZE, width=SIZE))
    (conf, iou), given = at, cycle(raws)
    tensors = cycle([torch.from_numpy(each) for each in raws])

    def theirs() -> object:
        found = nms.non_max_suppression(next(tensors), conf, iou, multi_label=several)[0]
        return ops.scale_boxes((SIZE, SIZE), found[:, :4], (1080, 1920))

    def ours() -> object:
        return decode(next(given), place, spec, conf=conf, iou=iou, multi_label=several)

    return ours, theirs


def _rows(name: str, ours: Step, theirs: Step, rounds: int, target: float | None) -> list[Row]:
    """Times both in turn; the first tenth warms up."""
    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(rounds):
        for step, kept in zip((ours, theirs), times, strict=True):
            started = time.thread_time()
            step()
            kept.append((time.thread_time() - started) * 1e3)
    mine, peers = (each[rounds // 10 :] for each in times)
    p50, p95 = np.percentile(mine, (50, 95))
    than, tail = np.percentile(peers, (50, 95))
    return [
        Row(name=f"{name}, p50", value=float(p50), unit="ms", target=target,
            holds=None if target is None else bool(p50 <= target), against=float(than)),
        Row(name=f"{name}, p95", value=float(p95), unit="ms", against=float(tail)),
    ]  # fmt: skip


def _drawn(count: int = 16) -> Iterator[Array]:
    """Yields outputs (1, 84, 8400): background, and 20 objects of which a dozen anchors speak."""
    rng = np.random.default_rng(1)
    for _ in range(count):
        raw = rng.uniform(0, 640, (1, 4 + CLASSES, ANCHORS)).astype(np.float32)
        raw[:, 4:] = rng.uniform(0, 1e-4, (1, CLASSES, ANCHORS))
        for _ in range(20):
            where = rng.choice(ANCHORS, 12, replace=False)
            box = np.array([*rng.uniform(100, 540, 2), *rng.uniform(20, 200, 2)])
            raw[0, :4, where] = box + rng.normal(0, 3, (12, 4))
            raw[0, 4 + rng.integers(CLASSES), where] = rng.uniform(0.05, 0.9, 12)
        yield raw


def _real(path: Path, images: Path, count: int = 32) -> Iterator[Array]:
    """Yields a detector's outputs on photographs."""
    import onnxruntime as ort

    from kedge_builder.models import export, weights

    graph = export.to_onnx(weights.load(path).model, SIZE)
    session = ort.InferenceSession(graph, providers=["CPUExecutionProvider"])
    found = sorted(each for each in images.rglob("*") if each.suffix in {".jpg", ".png"})
    for each in islice(found, count):
        frame: Frame = np.asarray(cv2.imread(str(each)), dtype=np.uint8)
        batch, _ = prepare(frame, InputSpec(height=SIZE, width=SIZE))
        yield np.asarray(session.run(None, {export.INPUT: batch})[0], dtype=np.float32)


if __name__ == "__main__":
    main()
