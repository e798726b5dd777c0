"""From a frame to an engine's input and from its output to detections.

Builder and agent run this same code: padding alone moves mAP by four points (measured on a PCB
model), so there is one letterbox and one decoder. OpenCV is imported where it is used.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from kedge_shared.detections import Array, empty
from kedge_shared.manifest import InputSpec, OutputSpec
from kedge_shared.suppression import suppress

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


class Preparer:
    """Fits one frame after the other into an engine's input, always into the same memory.

    Not thread-safe; what it returned holds until the next frame.

    Args:
        spec: What the engine is fed.
    """

    def __init__(self, spec: InputSpec) -> None:
        self._spec, self._scale = spec, np.float32(spec.scale)
        self._shape: tuple[int, ...] = ()

    def __call__(self, frame: Frame) -> tuple[Array, Placement]:
        """Fits a frame, (h, w, 3) BGR uint8.

        Returns:
            (1, 3, height, width) float32, RGB, and where the frame lies in it.

        Raises:
            ValueError: The frame is none.
        """
        import cv2

        if frame.shape != self._shape:
            self._lay_out(frame.shape)
        if frame.dtype != np.uint8:
            raise ValueError(f"a frame is uint8, not {frame.dtype}")
        fitted: Frame = frame
        if fitted.shape != self._resized.shape:
            size = (self._resized.shape[1], self._resized.shape[0])
            fitted = np.asarray(
                cv2.resize(frame, size, dst=self._resized, interpolation=cv2.INTER_LINEAR),
                dtype=np.uint8,
            )
        # Split while it is bytes, then one pass a plane that converts, scales and places: three
        # times as quick as OpenCV's blobFromImage on a padded copy, and the same numbers.
        planes = cv2.split(fitted, self._planes)
        for plane, place in zip(planes, self._places, strict=True):
            np.multiply(plane, self._scale, out=place)
        return self._batch, self._placement

    def _lay_out(self, shape: tuple[int, ...]) -> None:
        if len(shape) != 3 or shape[2] != 3 or not shape[0] or not shape[1]:
            raise ValueError(f"a frame is (height, width, 3), not {shape}")
        spec, (height, width, _) = self._spec, shape
        new_w, new_h = spec.width, spec.height
        if spec.letterbox:
            ratio = min(spec.height / height, spec.width / width)
            new_w, new_h = max(round(width * ratio), 1), max(round(height * ratio), 1)
        # As Ultralytics places it: the odd pixel goes right and below.
        left, top = round((spec.width - new_w) / 2 - 0.1), round((spec.height - new_h) / 2 - 0.1)
        grey = np.float32(spec.fill) * self._scale
        self._batch: Array = np.full((1, 3, spec.height, spec.width), grey, dtype=np.float32)
        rows, columns = slice(top, top + new_h), slice(left, left + new_w)
        self._places = [self._batch[0, at, rows, columns] for at in (2, 1, 0)]
        self._resized: Frame = np.empty((new_h, new_w, 3), dtype=np.uint8)
        self._planes = [np.empty((new_h, new_w), dtype=np.uint8) for _ in range(3)]
        self._placement = Placement(new_w / width, new_h / height, left, top, width, height)
        self._shape = shape


def prepare(frame: Frame, spec: InputSpec) -> tuple[Array, Placement]:
    """Fits one frame into an engine's input, into memory of its own.

    Args:
        frame: (h, w, 3) BGR uint8.
        spec: What the engine is fed.

    Returns:
        (1, 3, height, width) float32, RGB, and where the frame lies in it.
    """
    return Preparer(spec)(frame)


def all_finite(raw: npt.NDArray[np.float32]) -> bool:
    """Says whether there is neither NaN nor infinity in an output.

    Either of them stays in a sum, which takes a tenth of the time of looking at each number; a
    sum of large ones may overflow by itself, so then each is looked at.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        total = raw.sum()
    return bool(np.isfinite(total) or np.isfinite(raw).all())


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
    boxes, scores, labels = _candidates(raw[0], threshold, multi_label)
    if not len(boxes):
        return empty()
    overlap = spec.iou if iou is None else iou
    keep = suppress(boxes, scores, labels, overlap, MAX_DETECTIONS)
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


def _candidates(raw: Array, conf: float, multi_label: bool) -> tuple[Array, Array, Array]:
    """Returns boxes (n, 4) as x1 y1 x2 y2, scores (n,), classes (n,) above ``conf``.

    Args:
        raw: (4 + classes, anchors): read as it lies, since nearly all of it is thrown away.
        conf: Confidence.
        multi_label: One box may be several classes.
    """
    scores = raw[4:]
    if multi_label:
        anchors, labels = np.nonzero((scores > conf).T)
        picked = scores[labels, anchors]
    else:
        best = scores.max(axis=0)
        anchors = np.flatnonzero(best > conf)
        labels, picked = scores[:, anchors].argmax(axis=0), best[anchors]
    if len(picked) > _MAX_CANDIDATES:
        top = np.argsort(-picked, kind="stable")[:_MAX_CANDIDATES]
        anchors, labels, picked = anchors[top], labels[top], picked[top]
    centre, half = raw[:2, anchors], raw[2:4, anchors] / 2
    boxes = np.ascontiguousarray(np.concatenate([centre - half, centre + half]).T)
    return boxes, picked, labels.astype(np.float32)


def _to_frame(detections: Array, place: Placement) -> Array:
    x, y = detections[:, 0:4:2], detections[:, 1:4:2]
    x[:] = ((x - place.left) / place.scale_x).clip(0, place.width)
    y[:] = ((y - place.top) / place.scale_y).clip(0, place.height)
    return detections[np.argsort(-detections[:, 4], kind="stable")]
