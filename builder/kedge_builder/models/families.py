"""What the supported families are made of, and the names by which everything else is refused.

Families are told apart by their modules, not by file names: a pruned or renamed model keeps its
kind. The scale is what its architecture record says, if its first layer bears it out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

#: Model classes of ``ultralytics.nn.tasks`` that are no plain detectors → what they do.
OTHER_MODELS: Mapping[str, str] = {
    "SegmentationModel": "segmentation",
    "SemanticSegmentationModel": "semantic segmentation",
    "PoseModel": "pose",
    "OBBModel": "oriented box",
    "DepthModel": "depth",
    "ClassificationModel": "classification",
    "RTDETRDetectionModel": "RT-DETR",
    "WorldModel": "open vocabulary",
    "YOLOEModel": "open vocabulary",
    "YOLOESegModel": "open vocabulary",
}
#: The same by the class of the last layer, which is what a YAML file names.
OTHER_HEADS: Mapping[str, str] = {
    "Segment": "segmentation",
    "Segment26": "segmentation",
    "SemanticSegment": "semantic segmentation",
    "Pose": "pose",
    "Pose26": "pose",
    "OBB": "oriented box",
    "OBB26": "oriented box",
    "Depth": "depth",
    "Classify": "classification",
    "RTDETRDecoder": "RT-DETR",
    "WorldDetect": "open vocabulary",
    "YOLOEDetect": "open vocabulary",
    "YOLOESegment": "open vocabulary",
    "YOLOESegment26": "open vocabulary",
    "v10Detect": "YOLOv10",
}
SUPPORTED = "only YOLOv8, YOLO11 and YOLO26 detection"
_Scales: TypeAlias = Mapping[str, tuple[float, float, int]]
#: Scale letter → depth, width and channel limit (Ultralytics' own YAML files).
_YOLOV8_SCALES: _Scales = {
    "n": (0.33, 0.25, 1024),
    "s": (0.33, 0.50, 1024),
    "m": (0.67, 0.75, 768),
    "l": (1.00, 1.00, 512),
    "x": (1.00, 1.25, 512),
}
_YOLO11_SCALES: _Scales = {
    "n": (0.50, 0.25, 1024),
    "s": (0.50, 0.50, 1024),
    "m": (0.50, 1.00, 512),
    "l": (1.00, 1.00, 512),
    "x": (1.00, 1.50, 512),
}
_SCALES: Mapping[str, _Scales] = {
    "YOLOv8": _YOLOV8_SCALES,
    "YOLO11": _YOLO11_SCALES,
    "YOLO26": _YOLO11_SCALES,
}
#: Channels of the first convolution before the scale's width is applied.
_STEM_CHANNELS = 64


@dataclass(frozen=True)
class Kind:
    """What a detector is.

    Attributes:
        family: ``YOLOv8``, ``YOLO11``, ``YOLO26``, or ``YOLO`` where none of them fits.
        scale: ``n``, ``s``, ``m``, ``l``, ``x``, or ``custom``.
    """

    family: str
    scale: str


def kind_of(model: Any) -> Kind:
    """Tells family and scale of an Ultralytics detection model from its modules."""
    names = {type(each).__name__ for each in model.modules()}
    if names & {"C3k2", "C2PSA"}:
        # YOLO26 regresses distances directly: one bin, no distribution over distances.
        family = "YOLO26" if model.model[-1].reg_max == 1 else "YOLO11"
    else:
        family = "YOLOv8" if any(each.endswith("C2f") for each in names) else "YOLO"
    return Kind(family, _scale(model, family))


def _scale(model: Any, family: str) -> str:
    record = getattr(model, "yaml", None)
    known = _SCALES.get(family)
    if known is None or not isinstance(record, dict):
        return "custom"
    scales, letter = record.get("scales"), record.get("scale")
    given = scales.get(letter) if isinstance(scales, dict) else None
    expected = known.get(letter) if isinstance(letter, str) else None
    if expected is None or not isinstance(given, list) or tuple(given) != expected:
        return "custom"
    stem = next(iter(model.parameters())).shape[0]
    return str(letter) if stem == round(_STEM_CHANNELS * expected[1]) else "custom"
