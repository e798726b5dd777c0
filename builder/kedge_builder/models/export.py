"""From a torch detector to a float ONNX graph of fixed shape."""

from __future__ import annotations

import io
import logging
import warnings
from typing import Any

from kedge_shared.errors import InputError
from kedge_shared.manifest import Head

#: Both runtimes read it, and it has every operator of the three families. A class may bound it.
OPSET = 17
#: Version of what is done to a model before it is exported; part of cache keys.
METHOD = 2
INPUT, OUTPUT = "images", "output0"


def heads_of(model: Any) -> tuple[Head, ...]:
    """Returns the heads that a detector can be exported with, the preferred one first.

    YOLO26 is trained with two. One-to-many with suppression comes first: it is the more accurate
    one (Ultralytics' tables), what ``ultralytics export`` takes when nothing else is asked for,
    and free of TopK, which several runtimes lack. Once fused, a model has but the one it kept.
    """
    head = model.model[-1]
    if getattr(head, "one2one_cv2", None) is None:
        return ("yolo-v8",)
    return ("yolo-end2end",) if head.cv2 is None else ("yolo-v8", "yolo-end2end")


def fused(model: Any, head: Head) -> Any:
    """Returns a copy as it is deployed: batch norms folded in, CSP blocks split, one head left.

    A convolution that is cut in two arrives in ONNX as two Slices, quantizers put a scale behind
    each, and the cut itself then moves floats. With a convolution for each half there is nothing to
    cut (YOLOv8n at 640 px, one thread: 4 % of OpenVINO's INT8 time, 3 % of ONNX Runtime's), and the
    numbers are the same to the bit.

    Raises:
        InputError: The model has no such head.
    """
    from kedge_builder.compress.split import split_csp

    if head not in heads_of(model):
        raise InputError(f"the model has no {head} head", f"it has: {', '.join(heads_of(model))}")
    model = split_csp(model)
    if "yolo-end2end" in heads_of(model):
        model.model[-1].end2end = head == "yolo-end2end"
    return model.fuse(verbose=False).eval()


def opset_of(newest: int | None) -> int:
    """Returns the opset of an export whose reader takes none above ``newest``."""
    return OPSET if newest is None else min(OPSET, newest)


def check_size(model: Any, size: int) -> None:
    """Checks an input size against the strides.

    Raises:
        InputError: It is no multiple of the largest one.
    """
    stride = int(max(model.stride))
    if size < stride or size % stride:
        raise InputError(
            f"input size {size} is no multiple of {stride}",
            f"use {max(size // stride, 1) * stride}",
        )


def to_onnx(model: Any, size: int, head: Head | None = None, opset: int | None = None) -> bytes:
    """Exports a detector with its decode operators.

    Args:
        model: Ultralytics detection model, float32.
        size: Input pixels, square, a multiple of the model's largest stride.
        head: Which head; by default the first of :func:`heads_of`.
        opset: The newest that may be used; :data:`OPSET` at the most.

    Returns:
        The ONNX file, the same bytes for the same model: ``images`` (1, 3, size, size) →
        ``output0``, (1, 4 + classes, anchors) or, end to end, (1, n, 6), n ≤ 300.

    Raises:
        InputError: The size does not fit the strides, or there is no such head.
    """
    import onnx
    import torch

    check_size(model, size)
    model = fused(model, head or heads_of(model)[0])
    last = model.model[-1]
    last.export, last.format, last.dynamic = True, "onnx", False
    image = torch.zeros(1, 3, size, size)
    buffer = io.BytesIO()
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the tracer warns of every Python number in a shape
        model(image)  # anchors are made at the first call
        torch.onnx.export(
            model,
            (image,),
            buffer,
            opset_version=opset_of(opset),
            input_names=[INPUT],
            output_names=[OUTPUT],
            dynamo=False,
        )
    exported = onnx.load_from_string(buffer.getvalue())
    onnx.checker.check_model(exported)
    return bytes(exported.SerializeToString())
