"""Kedge's letterbox, decoder and suppression against Ultralytics' own, on photographs.

The weights that a head ends in are drawn and not trained, so that thousands of anchors speak up,
overlap and contradict each other: a trained head leaves ten.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from kedge_builder.models import architectures, export
from kedge_builder.models.torchvision_ops import ensure_torchvision_ops
from kedge_shared.detections import Array
from kedge_shared.manifest import Head, InputSpec, OutputSpec
from kedge_shared.vision import Frame, decode, prepare

ensure_torchvision_ops()

from ultralytics.data.augment import LetterBox  # noqa: E402
from ultralytics.utils import ASSETS, nms, ops  # noqa: E402

SIZE = 320
CLASSES = 80
#: With several classes a box, Ultralytics puts class 79 at pixel 606,720, where single precision
#: tells sixteenths of one: boxes at the very threshold then fall either way. So: the first four.
FEW = 4


def photographs() -> list[Frame]:
    """Those that Ultralytics brings, whole, cut to odd sizes, and narrower than a pixel."""
    whole = [cv2.imread(str(each)) for each in sorted(Path(ASSETS).glob("*.jpg"))]
    assert whole, "Ultralytics brings no photographs any more"
    first = whole[0]
    cuts = (first[:333, :701], first[100:421, 50:127], first[:96, :96], first[:1, :800])
    return [np.ascontiguousarray(each) for each in (*whole, *cuts)]


@pytest.fixture(scope="module", params=["yolov8n", "yolo11n", "yolo26n", "yolo26n end to end"])
def detector(request: pytest.FixtureRequest) -> tuple[Any, Head]:
    """A fused model of each family, and its head."""
    name, _, end = request.param.partition(" ")
    torch.manual_seed(7)
    model = architectures.build(architectures.read(f"{name}.yaml"))
    head: Head = "yolo-end2end" if end else "yolo-v8"
    wake(model)
    made = export.fused(model, head)
    last = made.model[-1]
    for branch in last.one2one_cv3 if end else last.cv3:
        torch.nn.init.normal_(branch[-1].weight, std=0.1)
        torch.nn.init.constant_(branch[-1].bias, -3.0)
    last.export, last.format = True, "onnx"
    return made, head


def wake(model: torch.nn.Module) -> None:
    """Lets batch norms see photographs: drawn weights alone fade out on the way to the head."""
    for each in model.modules():
        if isinstance(each, torch.nn.BatchNorm2d):
            each.momentum = 1.0
    batches = [prepare(each, InputSpec(height=SIZE, width=SIZE))[0] for each in photographs()]
    with torch.no_grad():
        model.train()(torch.from_numpy(np.concatenate(batches)))
    model.eval()


def theirs(raw: torch.Tensor, frame: Frame, conf: float, multi_label: bool, end: bool) -> Array:
    found = nms.non_max_suppression(
        raw.clone(), conf, 0.7 if multi_label else 0.45, multi_label=multi_label, end2end=end,
        nc=raw.shape[1] - 4,
    )[0]  # fmt: skip
    found[:, :4] = ops.scale_boxes((SIZE, SIZE), found[:, :4], frame.shape[:2])
    return np.asarray(found.numpy(), dtype=np.float32)


def in_order(found: Array) -> Array:
    """Rows by class, then where they are: equal scores may come in either order."""
    return found[np.lexsort((*found[:, 3::-1].T, found[:, 5]))]


@pytest.mark.parametrize("multi_label", [False, True])
def test_detections_are_those_of_ultralytics(detector: tuple[Any, Head], multi_label: bool) -> None:
    model, head = detector
    count = FEW if multi_label and head == "yolo-v8" else CLASSES
    spec = OutputSpec(head=head, classes=tuple(map(str, range(count))))
    conf, seen = 0.25, 0
    for frame in photographs():
        batch, place = prepare(frame, InputSpec(height=SIZE, width=SIZE))
        with torch.no_grad():
            raw = model(torch.from_numpy(batch))
        if head == "yolo-v8":
            raw = raw[:, : 4 + count]
        iou = 0.7 if multi_label else 0.45
        ours = decode(raw.numpy(), place, spec, conf=conf, iou=iou, multi_label=multi_label)
        wanted = theirs(raw, frame, conf, multi_label, head == "yolo-end2end")
        assert len(ours) == len(wanted)
        np.testing.assert_allclose(in_order(ours), in_order(wanted), atol=1e-3)
        seen += len(ours)
    assert seen > 100, "the drawn weights speak up"


def test_the_input_is_that_of_ultralytics() -> None:
    fit = LetterBox((SIZE, SIZE), auto=False)
    for frame in photographs():
        wanted = fit(image=frame)[:, :, ::-1].transpose(2, 0, 1).astype(np.float32) / 255
        ours, _ = prepare(frame, InputSpec(height=SIZE, width=SIZE))
        np.testing.assert_allclose(ours[0], wanted, atol=1e-6)
