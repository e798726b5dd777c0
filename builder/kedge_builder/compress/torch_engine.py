"""A torch detector where an engine is asked for, to be measured like one."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np

from kedge_shared.detections import Array


class TorchEngine:
    """Runs a detector in torch, normalization folded, on the CPU.

    A head with one-to-one branches (YOLO26) answers through its others, which the decoder reads.

    Args:
        model: Ultralytics detection model; left as it is.
    """

    def __init__(self, model: Any) -> None:
        self._model = copy.deepcopy(model).cpu().float().eval()
        head = self._model.model[-1]
        if getattr(head, "end2end", False):
            head.end2end = False
        self._model.fuse(verbose=False)

    def infer(self, batch: Array) -> Array:
        """Runs (1, 3, h, w) and returns (1, 4 + classes, anchors)."""
        import torch

        with torch.no_grad():
            found = self._model(torch.from_numpy(batch))
        return np.asarray((found[0] if isinstance(found, tuple) else found).numpy())
