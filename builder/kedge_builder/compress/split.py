"""CSP blocks with a convolution for each half: a dependency graph can follow them, and INT8 too.

Ultralytics' C2f, C3k2 and C2PSA make both halves of their input with one convolution and cut its
result in two. A dependency graph does not see which channel went to which half, and pruning
breaks the block. Here the halves have a convolution each, which computes the same numbers: a
convolution's output channels do not depend on one another, so the outputs are bit-equal.

The classes live in a module of their own because checkpoints name them.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import nn

#: Attributes that Ultralytics' models hang on each layer: where it reads from, its place, its
#: name, its parameters.
_PLACE = ("f", "i", "type", "np")


class SplitC2f(nn.Module):  # type: ignore[misc]
    """C2f and C3k2 with a convolution for each half.

    Args:
        block: An Ultralytics C2f or one of its subclasses; its parts are taken over.
    """

    def __init__(self, block: Any) -> None:
        super().__init__()
        _take_over(self, block)

    def forward(self, x: Any) -> Any:
        """Maps (n, c1, h, w) to (n, c2, h, w)."""
        parts = [self.cv0(x), self.cv1(x)]
        for each in self.m:
            parts.append(each(parts[-1]))
        return self.cv2(torch.cat(parts, 1))


class SplitC2PSA(nn.Module):  # type: ignore[misc]
    """C2PSA with a convolution for each half.

    Args:
        block: An Ultralytics C2PSA; its parts are taken over.
    """

    def __init__(self, block: Any) -> None:
        super().__init__()
        _take_over(self, block)

    def forward(self, x: Any) -> Any:
        """Maps (n, c1, h, w) to (n, c1, h, w)."""
        return self.cv2(torch.cat((self.cv0(x), self.m(self.cv1(x))), 1))


def split_csp(model: Any) -> Any:
    """Returns a copy of a detector whose CSP blocks are split; outputs are bit-equal.

    Args:
        model: Ultralytics detection model; one that is split already is just copied.
    """
    from ultralytics.nn.modules.block import C2PSA, C2f

    model = copy.deepcopy(model)
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, C2f):
                setattr(parent, name, SplitC2f(child))
            elif isinstance(child, C2PSA):
                setattr(parent, name, SplitC2PSA(child))
    return model


def _take_over(new: Any, block: Any) -> None:
    new.cv0, new.cv1 = _halves(block.cv1)
    new.cv2, new.m = block.cv2, block.m
    for name in _PLACE:
        if hasattr(block, name):
            setattr(new, name, getattr(block, name))
    new.train(block.training)


def _halves(conv: Any) -> tuple[Any, Any]:
    """Cuts an Ultralytics Conv (convolution, perhaps norm, activation) by its output channels."""
    half = conv.conv.out_channels // 2
    cut = copy.deepcopy(conv), copy.deepcopy(conv)
    for part, rows in zip(cut, (slice(0, half), slice(half, 2 * half)), strict=True):
        part.conv.out_channels = half
        _keep_rows(part.conv, ("weight", "bias"), rows)
        if hasattr(part, "bn"):
            part.bn.num_features = half
            _keep_rows(part.bn, ("weight", "bias", "running_mean", "running_var"), rows)
    return cut


def _keep_rows(module: Any, names: tuple[str, ...], rows: slice) -> None:
    for name in names:
        tensor = getattr(module, name)
        if tensor is not None:
            tensor.data = tensor.data[rows].clone()
