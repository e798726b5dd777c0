"""What a build leaves for people and machines: ``report.json`` and one self-contained page."""

from __future__ import annotations

import base64
from dataclasses import asdict, dataclass
from importlib import resources
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from kedge_builder.choosing import Chosen, plan_names
from kedge_builder.data.calibration_report import as_report
from kedge_builder.data.datasets import Data
from kedge_builder.judge.acceptance import Decision
from kedge_builder.measure.evaluate import Accuracy
from kedge_builder.measure.latency import Latency
from kedge_builder.quantize import qdq
from kedge_builder.quantize.candidates import Candidate
from kedge_builder.quantize.mixed import Mixed, Sensitivity
from kedge_builder.quantize.refitting import left
from kedge_builder.quantize.source import Source
from kedge_builder.report.charts import charts
from kedge_builder.report.explain import searched_elsewhere
from kedge_shared.detections import Array
from kedge_shared.manifest import Manifest
from kedge_shared.vision import Frame

if TYPE_CHECKING:
    from kedge_builder.report.output import Measured

_SHOWN_PIXELS = 320
_INT8 = "outside of the float zone: INT8"
_ALL_FLOAT = "the whole model stays float"
_HALF = "in front of the decode: FP16"
_DECODE = "decode: near 640 px FP16 has steps of half a pixel"
_UNTOUCHED = "the runtime's quantizer has no INT8 form of it"


@dataclass(frozen=True)
class Measurement:
    """Everything measured of one engine.

    Attributes:
        accuracy: On the gate images.
        latency: Interleaved with the other engine; ``None``: not measured.
        size_bytes: Of its files.
        label_score: On the golden frames.
    """

    accuracy: Accuracy
    latency: Latency | None
    size_bytes: int
    label_score: float | None

    def figures(self) -> dict[str, Any]:
        """Returns the figures of ``report.json``."""
        return {
            "map50": round(self.accuracy.map50, 5),
            "map50_95": round(self.accuracy.map50_95, 5),
            "latency_p50_ms": round(self.latency.p50, 3) if self.latency else None,
            "latency_p95_ms": round(self.latency.p95, 3) if self.latency else None,
            "engine_p50_ms": round(self.latency.engine_p50, 3) if self.latency else None,
            "size_bytes": self.size_bytes,
            "label_score": None if self.label_score is None else round(self.label_score, 4),
        }


@dataclass(frozen=True)
class Layer:
    """One node of the float graph and what became of it.

    Attributes:
        name: In the ONNX graph.
        operator: Its kind.
        precision: ``float``, ``float16`` or ``int8``.
        reason: Why.
        block: That mixed precision switches it with; empty in the float zone.
    """

    name: str
    operator: str
    precision: str
    reason: str
    block: str


#: One gate image: frame, detections of float, detections of the built engine.
Example: TypeAlias = tuple[Frame, Array, Array]


def layers_of(source: Source, candidate: Candidate, form: str, mixed: Mixed | None) -> list[Layer]:
    """Returns every node of the float graph that computes, with precision, block and reason."""
    plan = candidate.plan
    of_block = {node: each.name for each in source.blocks for node in each.nodes}
    quantizable = _quantizable(source, form)
    saved = {each.block: each for each in mixed.sensitivity} if mixed else {}
    fitted = left(candidate.files[0].path) if plan.refit else {}
    rows = []
    for node in source.onnx.graph.node:
        if node.op_type == "Constant":
            continue
        block = of_block.get(node.name, "")
        if plan.precision == "float":
            precision, reason = "float", _ALL_FLOAT
        elif plan.precision == "half":
            half = _is_half(node.name, source)
            precision, reason = ("float16", _HALF) if half else ("float", _DECODE)
        elif node.name in source.zone.reasons:
            precision = "float"
            reason = source.zone.reasons[node.name] + _refit_reason(fitted.get(node.name))
        elif block in plan.float_blocks:
            precision, reason = "float", _mixed_reason(saved.get(block))
        elif node.op_type in quantizable:
            precision, reason = "int8", _int8_reason(saved.get(block))
        else:
            precision, reason = "float", _UNTOUCHED
        rows.append(Layer(node.name, node.op_type, precision, reason, block))
    return rows


def _is_half(node: str, source: Source) -> bool:
    # The last convolutions belong to INT8's float zone and not to the decode.
    return node not in source.zone.reasons or node in source.zone.edges


def _quantizable(source: Source, form: str) -> set[str]:
    # NNCF decides by operator kinds much as onnxruntime does; its choices are not read back.
    return set(qdq.quantizable(source.onnx, "qdq-s8s8" if form == "qdq-s8s8" else "qdq-u8s8"))


def _refit_reason(share: float | None) -> str:
    if share is None:
        return ""
    if share >= 1:
        return "; weights as trained: fitting them did not help on calibration images left out"
    return (
        f"; weights fitted to what the quantized layers give: {1 - share:.0%} of the divergence "
        "from float gone on calibration images left out"
    )


def _mixed_reason(row: Sensitivity | None) -> str:
    if row is None:
        return "mixed precision: left float"
    return f"mixed precision: float takes {row.distortion_saved:.4f} off the distortion{_cost(row)}"


def _int8_reason(row: Sensitivity | None) -> str:
    if row is None:
        return _INT8
    return f"{_INT8}; float would take {row.distortion_saved:.4f} off the distortion{_cost(row)}"


def _cost(row: Sensitivity) -> str:
    return "" if row.ms_added is None else f" for {row.ms_added:.2f} ms a frame"


def calibration(data: Data, chosen: Chosen) -> dict[str, Any]:
    """Returns ``calibration`` of ``report.json``: images, candidates, which was taken and why."""
    curation = as_report(data.calibration) if data.calibration else {}
    taken = chosen.candidate
    # By the engine, not by name: QAT keeps its plan's name, and a search may take one again.
    tried = [*(each for each in chosen.tried if each.files != taken.files), taken]
    return {
        **curation,
        "images": len(data.calibrate),
        "chosen": chosen.candidate.plan.name,
        "why": chosen.reason,
        "candidates": [
            {**row, "taken": each is taken}
            for each, row in zip(tried, plan_names(tried), strict=True)
        ],
    }


def precision(chosen: Chosen, form: str) -> dict[str, Any]:
    """Returns ``precision`` of ``report.json``: every layer, and the search that set it."""
    mixed = chosen.mixed
    return {
        "form": form,
        "plan": chosen.candidate.plan.name,
        "aim": chosen.aim,
        "rungs": list(chosen.rungs),
        "float_blocks": list(chosen.candidate.plan.float_blocks),
        "sensitivity": [asdict(each) for each in mixed.sensitivity] if mixed else [],
        "steps": [asdict(each) for each in mixed.steps] if mixed else [],
        "layers": [
            asdict(each) for each in layers_of(chosen.source, chosen.candidate, form, mixed)
        ],
    }


def body(
    manifest: Manifest, decision: Decision, measured: Measured, more: dict[str, Any]
) -> dict[str, Any]:
    """Returns the contents of ``report.json``."""
    classes = manifest.output.classes
    before, after, drop = measured.before, measured.after, measured.drop
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
        "speed": asdict(measured.speed) if measured.speed else None,
        "memory_mb": measured.memory_mb,
        "images": len(after.accuracy.stats),
        "overrides": [
            {"budget": each.budget, "reason": each.reason} for each in decision.overrides
        ],
        "input": {"width": manifest.input.width, "height": manifest.input.height},
        "tolerance_share": manifest.golden.tolerances.share,
        **more,
    }


def page(contents: dict[str, Any], examples: list[Example], classes: tuple[str, ...]) -> str:
    """Returns the page: no script, no other file, everything escaped."""
    from jinja2 import Environment

    environment = Environment(autoescape=True)
    source = (resources.files("kedge_builder.report") / "report.html.j2").read_text()
    pictures = [
        (_picture(frame, before, classes), _picture(frame, after, classes))
        for frame, before, after in examples
    ]
    return environment.from_string(source).render(
        r=contents,
        pictures=pictures,
        charts=charts(contents),
        trials=_trials(contents),
        elsewhere=searched_elsewhere(contents["search"]),
    )


def _trials(contents: dict[str, Any]) -> set[str]:
    """Returns names of candidates that were made to learn of blocks, and were not taken."""
    rows = contents["calibration"]["candidates"]
    return {e["name"] for e in rows if "float: " in e["name"] and not e["taken"]}


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
