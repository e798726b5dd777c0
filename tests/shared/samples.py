"""A valid manifest, policy and assignment to start from; tests change one thing."""

from __future__ import annotations

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
