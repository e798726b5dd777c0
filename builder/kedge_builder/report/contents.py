"""What a build leaves for people and machines: ``report.json`` and one self-contained page."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from importlib import resources
from typing import Any, TypeAlias

import numpy as np

from kedge_builder.judge.acceptance import Decision
from kedge_builder.measure.evaluate import Accuracy, Drop
from kedge_builder.measure.latency import Latency
from kedge_builder.quantize.candidates import Candidate
from kedge_builder.quantize.floatzone import FloatZone
from kedge_shared.detections import Array
from kedge_shared.manifest import Manifest
from kedge_shared.vision import Frame

_SHOWN_PIXELS = 320
_INT8 = "outside of the float zone: INT8"
_UNTOUCHED = "the runtime's quantizer has no INT8 form of it"


@dataclass(frozen=True)
class Measurement:
    """Everything measured of one engine.

    Attributes:
        accuracy: On the gate images.
        latency: Interleaved with the other engine.
        size_bytes: Of its files.
        label_score: On the golden frames.
    """

    accuracy: Accuracy
    latency: Latency
    size_bytes: int
    label_score: float | None

    def figures(self) -> dict[str, Any]:
        """Returns the figures of ``report.json``."""
        return {
            "map50": round(self.accuracy.map50, 5),
            "map50_95": round(self.accuracy.map50_95, 5),
            "latency_p50_ms": round(self.latency.p50, 3),
            "latency_p95_ms": round(self.latency.p95, 3),
            "engine_p50_ms": round(self.latency.engine_p50, 3),
            "size_bytes": self.size_bytes,
            "label_score": None if self.label_score is None else round(self.label_score, 4),
        }


@dataclass(frozen=True)
class Layer:
    """One node of the float graph and what became of it.

    Attributes:
        name: In the ONNX graph.
        operator: Its kind.
        precision: ``float`` or ``int8``.
        reason: Why.
    """

    name: str
    operator: str
    precision: str
    reason: str


#: One gate image: frame, detections of float, detections of the built engine.
Example: TypeAlias = tuple[Frame, Array, Array]


def layers_of(graph: Any, zone: FloatZone, quantizable: set[str]) -> list[Layer]:
    """Returns every node that computes, with precision and reason."""
    rows = []
    for node in graph.graph.node:
        if node.op_type == "Constant":
            continue
        if node.name in zone.reasons:
            rows.append(Layer(node.name, node.op_type, "float", zone.reasons[node.name]))
        elif node.op_type in quantizable:
            rows.append(Layer(node.name, node.op_type, "int8", _INT8))
        else:
            rows.append(Layer(node.name, node.op_type, "float", _UNTOUCHED))
    return rows


def body(
    manifest: Manifest,
    decision: Decision,
    before: Measurement,
    after: Measurement,
    drop: Drop,
    more: dict[str, Any],
) -> dict[str, Any]:
    """Returns the contents of ``report.json``."""
    classes = manifest.output.classes
    return {
        "model": manifest.model,
        "release": manifest.release,
        "release_counter": manifest.release_counter,
        "device_class": manifest.device_class,
        "verdict": decision.verdict,
        "reasons": list(decision.reasons),
        "float": before.figures(),
        "built": after.figures(),
        "drop": {
            "map50_95": {"estimate": drop.estimate, "low": drop.low, "high": drop.high},
            "map50": {"estimate": before.accuracy.map50 - after.accuracy.map50},
            "per_class": {
                classes[at]: value - after.accuracy.per_class.get(at, 0.0)
                for at, value in before.accuracy.per_class.items()
            },
        },
        "images": len(after.accuracy.stats),
        "overrides": [
            {"budget": each.budget, "reason": each.reason} for each in decision.overrides
        ],
        "input": {"width": manifest.input.width, "height": manifest.input.height},
        "tolerance_share": manifest.golden.tolerances.share,
        **more,
    }


def candidate_rows(candidates: tuple[Candidate, ...]) -> list[dict[str, Any]]:
    """Returns what was measured to choose between candidates."""
    return [{"name": each.name, "select_map50_95": each.select_map50_95} for each in candidates]


def page(contents: dict[str, Any], layers: list[Layer], examples: list[Example],
         classes: tuple[str, ...]) -> str:  # fmt: skip
    """Returns the page: no script, no other file, everything escaped."""
    from jinja2 import Environment

    environment = Environment(autoescape=True)
    source = (resources.files("kedge_builder.report") / "report.html.j2").read_text()
    pictures = [
        (_picture(frame, before, classes), _picture(frame, after, classes))
        for frame, before, after in examples
    ]
    return environment.from_string(source).render(r=contents, layers=layers, pictures=pictures)


def _picture(frame: Frame, found: Array, classes: tuple[str, ...]) -> str:
    import cv2

    scale = _SHOWN_PIXELS / max(frame.shape[:2])
    size = round(frame.shape[1] * scale), round(frame.shape[0] * scale)
    image = np.asarray(cv2.resize(frame, size, interpolation=cv2.INTER_AREA), dtype=np.uint8)
    for row in found:
        x1, y1, x2, y2 = (round(float(v) * scale) for v in row[:4])
        cv2.rectangle(image, (x1, y1), (x2, y2), (60, 220, 60), 1)
        text = f"{classes[int(row[5])]} {row[4]:.2f}"
        cv2.putText(image, text, (x1, max(9, y1 - 2)), cv2.FONT_HERSHEY_SIMPLEX, 0.32,
                    (60, 220, 60), 1, cv2.LINE_AA)  # fmt: skip
    coded = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 80])[1]
    return "data:image/jpeg;base64," + base64.b64encode(coded.tobytes()).decode()
