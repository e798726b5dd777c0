"""Makes torchvision importable beside a CPU build of torch.

torchvision's wheel on the Python package index is linked against CUDA. With a CPU torch its
operators do not load, and ``import torchvision`` fails with ``operator torchvision::nms does not
exist``; Ultralytics imports it for training and validation. Here the operators are loaded if they
can be, else the two that are missed are defined over OpenCV's suppression.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

_defined: list[Any] = []


def ensure_torchvision_ops() -> None:
    """Call before the first import of torchvision; does nothing where all is well."""
    if _defined or _load_real():
        return
    import torch

    library: Any = torch.library.Library("torchvision", "DEF")
    library.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    library.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    for name in ("nms", "qnms"):
        library.impl(name, _suppress, "CompositeExplicitAutograd")
    # A library that is collected takes its operators with it.
    _defined.append(library)
    import torchvision.extension

    torchvision.extension._has_ops = lambda: True


def _load_real() -> bool:
    import torch

    spec = importlib.util.find_spec("torchvision")
    if spec is None or spec.origin is None:
        return True  # not installed: whoever needs it will say so
    for path in Path(spec.origin).parent.glob("_C*.so"):
        try:
            torch.ops.load_library(str(path))
        except OSError:
            return False
        return True
    return False


def _suppress(dets: Any, scores: Any, iou_threshold: float) -> Any:
    """Drops the weaker of overlapping boxes: (n, 4) x1 y1 x2 y2, (n,) → kept rows, best first."""
    import cv2
    import numpy as np
    import torch

    if not len(dets):
        return torch.zeros((0,), dtype=torch.int64)
    boxes = dets.detach().float().cpu().numpy().astype(np.float64)
    sizes = np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], axis=1)
    values = scores.detach().float().cpu().numpy()
    # OpenCV drops scores at or under a threshold that may not be negative; torchvision has none.
    values = values - values.min() + 1.0
    keep: Any = cv2.dnn.NMSBoxes(sizes.tolist(), values.tolist(), 0.0, float(iou_threshold))
    return torch.as_tensor(np.asarray(keep).reshape(-1), dtype=torch.int64)
