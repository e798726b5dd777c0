"""From a torch detector to a float ONNX graph of fixed shape."""

from __future__ import annotations

import copy
import io
import logging
import warnings
from typing import Any

from kedge_shared.errors import InputError

#: Both runtimes read it, and it has every operator of YOLOv8.
OPSET = 17


def to_onnx(model: Any, size: int) -> bytes:
    """Exports a detector with its decode operators.

    Args:
        model: Ultralytics detection model, float32.
        size: Input pixels, square, a multiple of the model's largest stride.

    Returns:
        The ONNX file: ``images`` (1, 3, size, size) → ``output0`` (1, 4 + classes, anchors).

    Raises:
        InputError: The size does not fit the strides.
    """
    import onnx
    import torch

    stride = int(max(model.stride))
    if size % stride:
        raise InputError(
            f"input size {size} is no multiple of {stride}", f"use {size // stride * stride}"
        )
    model = copy.deepcopy(model)
    model = model.fuse(verbose=False).eval()
    head = model.model[-1]
    head.export, head.format, head.dynamic = True, "onnx", False
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
            opset_version=OPSET,
            input_names=["images"],
            output_names=["output0"],
            dynamo=False,
        )
    exported = onnx.load_from_string(buffer.getvalue())
    onnx.checker.check_model(exported)
    return bytes(exported.SerializeToString())
