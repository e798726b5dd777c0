"""A valid manifest, policy and assignment to start from; tests change one thing."""

from __future__ import annotations

from typing import Any

from kedge_shared.build_report import BuildReport, Figures, Layer, Loss
from kedge_shared.device_classes import Budgets, RuntimeRange
from kedge_shared.manifest import (
    FileRef,
    Golden,
    InputSpec,
    Manifest,
    OutputSpec,
    Provenance,
    Requires,
)
from kedge_shared.policy import GoldenFrame, LabelledBox, ModelPolicy
from kedge_shared.protocol import Assignment, DeviceFacts, ManifestRef
from kedge_shared.trust import Pinned

HASH = "a" * 64


def manifest() -> Manifest:
    return Manifest(
        schema=1,
        model="shapes",
        release="1.0",
        release_counter=10,
        device_class="x86-onnxruntime",
        runtime=RuntimeRange(name="onnxruntime", range=">=1.20,<2"),
        requires=Requires(arch=("x86_64",), cpu_flags=("avx2",)),
        files=(
            FileRef(role="engine", name="model.onnx", sha256=HASH, length=10),
            FileRef(role="golden-references", name="golden.json", sha256="b" * 64, length=5),
        ),
        input=InputSpec(height=160, width=160),
        output=OutputSpec(head="yolo-v8", classes=("circle", "square")),
        golden=Golden(references="b" * 64),
        budgets=Budgets(latency_ratio=1.5),
        provenance=Provenance(weights_sha256=HASH, data_sha256=HASH, recipe={}, tools={}),
    )


def policy() -> ModelPolicy:
    box = LabelledBox(label="circle", x1=0, y1=0, x2=10, y2=10)
    frame = GoldenFrame(name="a.jpg", sha256="c" * 64, length=9, labels=(box,))
    return ModelPolicy(schema=1, model="shapes", version=1, accuracy_floor=0.6, golden=(frame,))


def pinned() -> Pinned:
    return Pinned(
        device="cam-1",
        key_id="key-1",
        device_class="x86-onnxruntime",
        models=("shapes",),
        workload="main",
    )


def assignment() -> Assignment:
    return Assignment(
        device="cam-1",
        device_key_id="key-1",
        workload="main",
        deployment="de-1",
        manifest=ManifestRef(path=manifest().target_path, sha256=HASH, length=100),
        intent="install",
        rollout="ro-1",
        stage=0,
        epoch=1,
        counter=5,
        issued=1000,
        expires=2000,
    )


def facts() -> DeviceFacts:
    return DeviceFacts(
        arch="x86_64",
        memory_mb=4096,
        runtimes={"onnxruntime": "1.32.0"},
        cpu_flags=("avx2", "fma"),
    )


def report_json(manifest: Manifest, **changes: Any) -> dict[str, Any]:
    """Returns what ``kedge build`` writes to ``report.json``, as far as others read it."""
    before = {"map50": 0.7, "map50_95": 0.5, "latency_p50_ms": 40.0, "latency_p95_ms": 50.0,
              "size_bytes": 12_000_000}  # fmt: skip
    zone = {"name": "/model.22/Concat", "operator": "Concat", "block": "", "precision": "float",
            "reason": "decode: quantizing it loses the boxes"}  # fmt: skip
    layers = [
        {"name": f"/{block}/conv/Conv", "operator": "Conv", "block": block, "precision": precision,
         "reason": "mixed precision" if precision == "float" else "outside of the float zone"}
        for block, precision in (("model.0", "int8"), ("model.1", "float"), ("model.2", "int8"))
    ]  # fmt: skip
    return {
        "model": manifest.model, "release": manifest.release,
        "device_class": manifest.device_class, "verdict": "pass", "images": 200,
        "reasons": ["mAP50-95 drops by 1.20 points, budget 2.00"], "overrides": [], "notes": [],
        "float": before, "built": before | {"map50_95": 0.488, "size_bytes": 3_000_000},
        "drop": {"map50_95": {"estimate": 0.012, "low": 0.004, "high": 0.019},
                 "map50": {"estimate": 0.01}, "per_class": {"circle": 0.003, "square": 0.021}},
        "precision": {
            "form": "qdq-u8s8", "plan": "entropy", "aim": 0.005, "rungs": ["mixed"],
            "float_blocks": ["model.1"], "layers": [*layers, zone],
            "sensitivity": [{"block": "model.1", "distortion_saved": 0.02, "points_gained": 0.4,
                             "ms_added": 0.25}],
        },
        "calibration": {
            "images": 128, "chosen": "entropy", "why": "lost least of 2",
            "candidates": [
                {"name": each, "select_map50_95": 0.49, "drop": 0.01, "drop_low": 0.0,
                 "drop_high": 0.02, "distortion": 0.03, "bytes": 3_000_000,
                 "taken": each == "entropy"}
                for each in ("minmax", "entropy")
            ],
        },
        "search": {}, "provenance": {}, **changes,
    }  # fmt: skip


def searched(points: int) -> dict[str, Any]:
    """Returns the ``search`` of a report: so many points, of which one could not be built."""
    trials = [
        {"key": f"p{at}", "title": f"pruned {at}", "front": at == 1, "feasible": at > 0, "why": "",
         "measured": {"map50_95": 0.5 - at / 1e4, "latency_p50_ms": 40.0 - at / 1e3,
                      "size_bytes": 1_000_000} if at else None}
        for at in range(points)
    ]  # fmt: skip
    return {"goal": "fastest", "reason": "fastest that keeps every budget", "picked": "p1",
            "baseline": "p2", "trials": trials}  # fmt: skip


def build_report() -> BuildReport:
    figures = Figures(
        map50=0.7, map50_95=0.5, latency_p50_ms=None, latency_p95_ms=None, size_bytes=5
    )
    layer = Layer(name="/a", operator="Conv", precision="int8", reason="", block="model.0")
    return BuildReport(
        schema=1, manifest=HASH, reasons=(), notes=(), images=10, before=figures, built=figures,
        loss=Loss(estimate=0.01, low=None, high=None, per_class={"circle": 0.02}), plan="minmax",
        why="", form="qdq-u8s8", candidates=(), layers=(layer,), layers_in_all=1, sensitivity=(),
    )  # fmt: skip
