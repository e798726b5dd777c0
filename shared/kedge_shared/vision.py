"""From a frame to an engine's input and from its output to detections.

Builder and agent run this same code: padding alone moves mAP by four points (measured on a PCB
model), so there is one letterbox and one decoder. OpenCV is imported where it is used.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from kedge_shared.detections import Array, empty
from kedge_shared.manifest import InputSpec, OutputSpec

#: One camera frame: (height, width, 3), BGR, uint8.
Frame: TypeAlias = npt.NDArray[np.uint8]
MAX_DETECTIONS = 300
#: Suppression looks at so many boxes at the most, strongest first.
_MAX_CANDIDATES = 30_000


@dataclass(frozen=True)
class Placement:
    """Where a frame lies in the engine's input: input = frame * scale + offset.

    Attributes:
        scale_x: Input pixels a frame pixel.
        scale_y: The same, vertically.
        left: Input pixels.
        top: Input pixels.
        width: Of the frame, pixels.
        height: Of the frame.
    """

    scale_x: float
    scale_y: float
    left: int
    top: int
    width: int
    height: int


def prepare(frame: Frame, spec: InputSpec) -> tuple[Array, Placement]:
    """Fits a frame into the engine's input.

    Args:
        frame: (h, w, 3) BGR uint8.
        spec: What the engine is fed.

    Returns:
        (1, 3, height, width) float32, RGB, and where the frame lies in it.
    """
    import cv2

    height, width = frame.shape[:2]
    if spec.letterbox:
        ratio = min(spec.height / height, spec.width / width)
        new_w, new_h = round(width * ratio), round(height * ratio)
    else:
        new_w, new_h = spec.width, spec.height
    resized = frame
    if (new_w, new_h) != (width, height):
        resized = cv2.resize(frame, (new_w, new_h), interpolation=cv2.INTER_LINEAR)
    # As Ultralytics places it: the odd pixel goes right and below.
    left, top = round((spec.width - new_w) / 2 - 0.1), round((spec.height - new_h) / 2 - 0.1)
    canvas = np.full((spec.height, spec.width, 3), spec.fill, dtype=np.uint8)
    canvas[top : top + new_h, left : left + new_w] = resized
    blob = cv2.dnn.blobFromImage(canvas, scalefactor=spec.scale, swapRB=True)
    placement = Placement(new_w / width, new_h / height, left, top, width, height)
    return blob, placement


def decode(
    raw: npt.NDArray[np.float32],
    placement: Placement,
    spec: OutputSpec,
    *,
    conf: float | None = None,
    iou: float | None = None,
    multi_label: bool = False,
) -> Array:
    """Reads detections out of an engine's output.

    The weaker of overlapping ones are dropped, unless the head did that itself (``yolo-end2end``).

    Args:
        raw: As ``spec.head`` says: (1, 4 + classes, anchors) or (1, n, 6).
        placement: From :func:`prepare`.
        spec: How the output is read.
        conf: Confidence instead of ``spec.conf`` (mAP wants 0.001).
        iou: Overlap instead of ``spec.iou``.
        multi_label: One box may be several classes, as validators count it; on the board a box
            is its best class. End to end the model has decided that already.

    Returns:
        (n, 6) in pixels of the frame, strongest first, n ≤ 300.

    Raises:
        ValueError: The output is not what the manifest says.
    """
    _check_shape(raw, spec)
    threshold = spec.conf if conf is None else conf
    if spec.head == "yolo-end2end":
        return _to_frame(_finished(raw[0], threshold, len(spec.classes)), placement)
    rows = np.ascontiguousarray(raw[0].T)
    boxes, scores, labels = _candidates(rows, threshold, multi_label)
    if not len(boxes):
        return empty()
    keep = _suppress(boxes, scores, labels, threshold, spec.iou if iou is None else iou)
    result = np.column_stack([boxes[keep], scores[keep], labels[keep]]).astype(np.float32)
    return _to_frame(result, placement)


def scores_of(raw: npt.NDArray[np.float32], spec: OutputSpec) -> Array:
    """Returns the scores of an output, in whatever shape its head has them."""
    return raw[0, :, 4] if spec.head == "yolo-end2end" else raw[0, 4:]


def _check_shape(raw: npt.NDArray[np.float32], spec: OutputSpec) -> None:
    if spec.head == "yolo-end2end":
        right, wanted = raw.shape[2:] == (6,), "n, 6"
    else:
        wanted = f"{4 + len(spec.classes)}, anchors"
        right = raw.ndim == 3 and raw.shape[1] == 4 + len(spec.classes)
    if not right or raw.shape[0] != 1:
        raise ValueError(f"output {raw.shape} is not (1, {wanted})")


def _finished(rows: Array, conf: float, classes: int) -> Array:
    """Returns the rows of an end-to-end head above ``conf``: (n, 6), at most 300."""
    found = rows[rows[:, 4] > conf][:MAX_DETECTIONS].astype(np.float32)
    # A class index that went through rounding kernels may be a fraction off a whole number.
    found[:, 5] = np.rint(found[:, 5])
    if len(found) and not (found[:, 5].min() >= 0 and found[:, 5].max() < classes):
        worst = found[:, 5][np.argmax(np.abs(found[:, 5]))]
        raise ValueError(f"output names class {worst:.0f}, there are {classes}")
    return found


def _candidates(rows: Array, conf: float, multi_label: bool) -> tuple[Array, Array, Array]:
    """Returns boxes (n, 4) as x1 y1 x2 y2, scores (n,), classes (n,) above ``conf``."""
    scores = rows[:, 4:]
    if multi_label:
        anchors, labels = np.nonzero(scores > conf)
    else:
        best = scores.argmax(axis=1)
        anchors = np.nonzero(scores[np.arange(len(rows)), best] > conf)[0]
        labels = best[anchors]
    picked = scores[anchors, labels]
    if len(picked) > _MAX_CANDIDATES:
        top = np.argsort(-picked, kind="stable")[:_MAX_CANDIDATES]
        anchors, labels, picked = anchors[top], labels[top], picked[top]
    centre, size = rows[anchors, :2], rows[anchors, 2:4]
    boxes = np.concatenate([centre - size / 2, centre + size / 2], axis=1)
    return boxes, picked, labels.astype(np.float32)


def _suppress(
    boxes: Array, scores: Array, labels: Array, conf: float, iou: float
) -> npt.NDArray[np.intp]:
    import cv2

    suppress: Any = cv2.dnn.NMSBoxesBatched  # its stubs know lists only; arrays are what it reads
    sizes = np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], axis=1)
    keep = suppress(
        sizes.astype(np.float64), scores.astype(np.float32), labels.astype(np.int32), conf, iou
    )
    return np.asarray(keep, dtype=np.intp).reshape(-1)[:MAX_DETECTIONS]


def _to_frame(detections: Array, place: Placement) -> Array:
    detections[:, [0, 2]] = (detections[:, [0, 2]] - place.left) / place.scale_x
    detections[:, [1, 3]] = (detections[:, [1, 3]] - place.top) / place.scale_y
    detections[:, [0, 2]] = detections[:, [0, 2]].clip(0, place.width)
    detections[:, [1, 3]] = detections[:, [1, 3]].clip(0, place.height)
    return detections[np.argsort(-detections[:, 4], kind="stable")]
