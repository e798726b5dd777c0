"""The runner as a process: how soon it answers a frame, and how much it weighs."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import cv2

from benchmarks.swapping import frames_of, shape_of
from kedge_agent.blobs import BlobStore
from kedge_agent.local_protocol import SLOTS_FILE, Slot, Slots
from kedge_agent.specs import RunnerSettings, SinkSpec, SourceSpec
from kedge_shared import wire
from kedge_shared.device_classes import Budgets, RuntimeRange
from kedge_shared.ids import sha256_hex
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

_SECONDS = 60.0
#: What a person would write first, with the same engine and the same frame.
_BARE = """
import resource, sys, time
import numpy as np, onnxruntime as ort
o = ort.SessionOptions(); o.intra_op_num_threads = 1
s = ort.InferenceSession(sys.argv[1], o, providers=["CPUExecutionProvider"])
x = np.zeros((1, 3, int(sys.argv[2]), int(sys.argv[2])), np.float32)
for _ in range(20): s.run(None, {s.get_inputs()[0].name: x})
pages = int(open("/proc/self/statm").read().split()[1])
print(pages * resource.getpagesize() / 2**20)
"""


def bare_mb(model: Path) -> float:
    """Returns resident memory of a process with nothing but the runtime and the engine, MiB."""
    size, _ = shape_of(model)
    done = subprocess.run(
        [sys.executable, "-c", _BARE, str(model), str(size)],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    return float(done.stdout)


def start(model: Path, home: Path) -> tuple[float, float]:
    """Starts a runner that serves a model; returns seconds to its first answer, and MiB."""
    lines = home / "frames.jsonl"
    lines.unlink(missing_ok=True)
    config = _prepare(model, home, lines)
    started = time.monotonic()
    runner = subprocess.Popen([sys.executable, "-m", "kedge_agent.runner", "--config", str(config)])
    try:
        while not (lines.is_file() and lines.stat().st_size):
            if runner.poll() is not None or time.monotonic() - started > _SECONDS:
                raise RuntimeError("the runner answered no frame")
            time.sleep(0.005)
        first = time.monotonic() - started
        time.sleep(2)
        pages = int(Path(f"/proc/{runner.pid}/statm").read_text().split()[1])
        return first, pages * os.sysconf("SC_PAGE_SIZE") / 2**20
    finally:
        runner.send_signal(signal.SIGTERM)
        runner.wait()


def _prepare(model: Path, home: Path, lines: Path) -> Path:
    store, pictures = BlobStore(home / "blobs"), home / "pictures"
    for folder in (store.root, pictures):
        folder.mkdir(exist_ok=True)
    for at, frame in enumerate(frames_of()):
        cv2.imwrite(str(pictures / f"{at}.jpg"), frame)
    slot = _put(model, store, (pictures / "0.jpg").read_bytes())
    (home / SLOTS_FILE).write_bytes(wire.encode(Slots(active=slot)))
    config = home / "runner.json"
    config.write_bytes(wire.encode(RunnerSettings(
        state_dir=home, blobs=store.root, socket=home / "runner.sock",
        sources=(SourceSpec(kind="folder", path=pictures, fps=20),),
        sinks=(SinkSpec(kind="jsonl", path=lines),),
    )))  # fmt: skip
    return config


def _put(model: Path, store: BlobStore, golden: bytes) -> Slot:
    def put(data: bytes) -> str:
        store.path(sha256_hex(data)).write_bytes(data)
        return sha256_hex(data)

    size, classes = shape_of(model)
    engine, references = model.read_bytes(), json.dumps({}).encode()
    box = LabelledBox(label=classes[0], x1=0, y1=0, x2=9, y2=9)
    frame = GoldenFrame(name="0.jpg", sha256=put(golden), length=len(golden), labels=(box,))
    policy = ModelPolicy(schema=1, model="bench", version=1, accuracy_floor=0.0, golden=(frame,))
    manifest = Manifest(
        schema=1, model="bench", release="1", release_counter=1, device_class="bench",
        runtime=RuntimeRange(name="onnxruntime", range=">=1"), requires=Requires(),
        files=(
            FileRef(role="engine", name="model.onnx", sha256=put(engine), length=len(engine)),
            FileRef(role="golden-references", name="golden.json", sha256=put(references),
                    length=len(references)),
        ),
        input=InputSpec(height=size, width=size),
        output=OutputSpec(head="yolo-v8", classes=tuple(classes)),
        golden=Golden(references=sha256_hex(references)), budgets=Budgets(),
        provenance=Provenance(weights_sha256="0" * 64, data_sha256="0" * 64, recipe={}, tools={}),
    )  # fmt: skip
    body = wire.encode_pretty(replace(manifest))
    return Slot(release="1", manifest=put(body), policy=put(wire.encode_pretty(policy)),
                engine=sha256_hex(engine))  # fmt: skip
