"""A build for TensorRT, and the board that it is for."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2

from kedge_agent import identity
from kedge_agent.blobs import BlobStore
from kedge_agent.building.forms import form_of
from kedge_agent.local_protocol import Slot
from kedge_shared import wire
from kedge_shared.device_classes import RuntimeRange
from kedge_shared.ids import sha256_hex
from kedge_shared.manifest import FileRef, InputSpec, Manifest
from kedge_shared.plans import Plan, TimingCache
from kedge_shared.protocol import DeviceFacts
from kedge_shared.resolver import resolve
from tests.shared import samples
from tests.sim.camera import PICTURE
from tests.sim.gpu.fake_tensorrt import plan_of
from tests.sim.store import put

VERSION = "10.3.0.26"
NETWORK: dict[str, Any] = {
    "layers": [
        ["conv", "CONVOLUTION", ["images"], ["a"]], ["last", "CONVOLUTION", ["a"], ["b"]],
        ["scale", "CONSTANT", [], ["c"]], ["exp", "UNARY", ["b"], ["d"]],
        ["mul", "ELEMENTWISE", ["d", "c"], ["output0"]],
    ],
    "outputs": ["output0"],
}  # fmt: skip
ONNX = json.dumps(NETWORK).encode()
CACHE = b"timings of this class"
BOARD = DeviceFacts(
    arch="aarch64", memory_mb=7600, runtimes={"tensorrt": VERSION}, sm=87, soc="tegra234",
    libraries={"cuda": "12.6"}, ways=("plans", "build", "fallback"), agent="0.1.0",
)  # fmt: skip


def ref(role: Any, data: bytes, name: str) -> FileRef:
    return FileRef(role=role, name=name, sha256=sha256_hex(data), length=len(data))


def plan(data: bytes, **more: Any) -> Plan:
    told: dict[str, Any] = {"runtime": "tensorrt", "version": VERSION, "sm": (87,), "cuda": 12}
    return Plan(file=sha256_hex(data), onnx=sha256_hex(ONNX), **(told | more))


def manifest(**more: Any) -> Manifest:
    base = samples.manifest()
    references = base.file("golden-references")
    files = (ref("engine", ONNX, "model.onnx"), references, ref("timing-cache", CACHE, "timings"),
             ref("plan", plan_of(), "model.plan"))  # fmt: skip
    cache = TimingCache(file=sha256_hex(CACHE), version=VERSION, sm=87, cuda=12)
    told: dict[str, Any] = {
        "runtime": RuntimeRange(name="tensorrt", range=">=10,<11"), "files": files, "plans": (),
        "timing_caches": (cache,), "requires": replace(base.requires, arch=(), cpu_flags=()),
        "input": InputSpec(height=32, width=32),
    }  # fmt: skip
    return replace(base, **(told | more))


def slot_of(store: BlobStore, found: Manifest) -> Slot:
    picture = bytes(cv2.imencode(".png", PICTURE)[1])
    golden = replace(samples.policy().golden[0], sha256=put(store, picture), length=len(picture))
    policy = put(store, wire.encode(replace(samples.policy(), golden=(golden,))))
    document = put(store, wire.encode(found))
    return Slot(release="2.0", manifest=document, policy=policy, engine=found.engine_hash,
                form=form_of(found, resolve(found, BOARD)))  # fmt: skip


def store_in(state_dir: Path) -> BlobStore:
    """Returns a board's store with the files of the build."""
    found = BlobStore(state_dir / "blobs", identity.sealer(state_dir))
    for each in (ONNX, CACHE, plan_of()):
        put(found, each)
    return found
