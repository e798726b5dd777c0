"""What a detector's head answers, and how far two heads' answers lie apart.

One distance serves three ends: a pruned model learns from the one it was, a quantized one from
its float self, and a group of channels is judged by what its loss does to the answers.

Classes: Kullback-Leibler divergence of each class's probability. Boxes: divergence of the four
distance distributions, which hold more than their mean (Zheng et al., Localization Distillation
for Dense Object Detection, CVPR 2022); a head without distributions (YOLO26) gives distances,
compared by their difference. Boxes count by the teacher's confidence, since nine anchors of ten
look at background, whose boxes mean nothing (Mehta and Ozturk, Object detection at 200 Frames
Per Second, 2018).
"""

from __future__ import annotations

from typing import Any

#: Shares of boxes and classes, in proportion to Ultralytics' own gains (dfl 1.5, cls 0.5).
_BOX, _CLASS = 1.5, 0.5
#: Softens box distributions, so that what the teacher thinks second likely is learned too.
_TEMPERATURE = 2.0


def last_convolutions(model: Any) -> list[Any]:
    """Returns the bare convolution at the end of each branch of the head, found by structure.

    Their outputs are what the task defines (classes, distances): they are never pruned, and they
    stay float.
    """
    from torch import nn

    found = []
    for name, branches in model.model[-1].named_children():
        if isinstance(branches, nn.ModuleList) and name.endswith(("cv2", "cv3")):
            found += [
                [each for each in branch.modules() if isinstance(each, nn.Conv2d)][-1]
                for branch in branches
            ]
    return found


def answers(output: Any) -> list[dict[str, Any]]:
    """Returns the raw answers in what an Ultralytics detector returns, training or not.

    Returns:
        One for each set of branches (YOLO26 has two), each with ``boxes``
        (n, 4 * bins, anchors) and ``scores`` (n, classes, anchors), before any sigmoid.
    """
    raw = output[1] if isinstance(output, tuple) else output
    return list(raw.values()) if "one2many" in raw else [raw]


def distance(student: Any, teacher: Any) -> Any:
    """Returns how far apart two models answered the same images: a scalar, 0 when equal.

    Args:
        student: Output of a detector; gradients flow into it.
        teacher: Output of another with the same head.
    """
    pairs = zip(answers(student), answers(teacher), strict=True)
    return sum(_one(mine, wanted) for mine, wanted in pairs)


def _one(mine: dict[str, Any], wanted: dict[str, Any]) -> Any:
    import torch.nn.functional as F

    target = wanted["scores"].sigmoid()
    entropy = F.binary_cross_entropy_with_logits(wanted["scores"], target, reduction="none")
    cross = F.binary_cross_entropy_with_logits(mine["scores"], target, reduction="none")
    confidence = target.amax(1)
    objects = confidence.sum().clamp(min=1)
    classes = (cross - entropy).sum() / objects
    boxes = (_boxes(mine["boxes"], wanted["boxes"]) * confidence).sum() / objects
    return _BOX * boxes + _CLASS * classes


def _boxes(mine: Any, wanted: Any) -> Any:
    """Compares (n, 4 * bins, anchors) with the same; returns (n, anchors)."""
    import torch.nn.functional as F

    n, channels, anchors = wanted.shape
    bins = channels // 4
    if bins == 1:
        return (mine - wanted).abs().mean(1)
    shape = (n, 4, bins, anchors)
    logits = mine.view(shape) / _TEMPERATURE, wanted.view(shape) / _TEMPERATURE
    logs = [F.log_softmax(each, dim=2) for each in logits]
    apart = F.kl_div(logs[0], logs[1], reduction="none", log_target=True).sum(2).mean(1)
    return apart * _TEMPERATURE**2
