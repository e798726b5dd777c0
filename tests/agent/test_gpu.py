"""On a real GPU: what stand-ins cannot tell. Skipped with its reason where there is none."""

from __future__ import annotations

import ctypes
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kedge_agent.blobs import BlobStore
from kedge_agent.building.maker import order
from kedge_agent.detector import Detector
from kedge_agent.gpu import board_python
from kedge_agent.gpu.engine_host import Cuda, EngineFault
from kedge_agent.hotswap import HotEngine
from kedge_agent.runtimes.base import Engine
from kedge_agent.runtimes.registry import RUNTIMES
from kedge_agent.runtimes.tensorrt import devices, memory_of, open_cuda
from kedge_shared.device_classes import RuntimeRange
from kedge_shared.manifest import InputSpec, OutputSpec
from kedge_shared.plans import OnDevice
from tests.sim.engine import slot_of
from tests.sim.onnx_engine import SIZE, tiny_onnx
from tests.sim.store import put

pytestmark = pytest.mark.hardware

BATCH = np.random.default_rng(0).random((1, 3, SIZE, SIZE), dtype=np.float32)
MIB = 2**20


class Spec:
    runtime = RuntimeRange(name="tensorrt", range=">=8")
    input = InputSpec(height=SIZE, width=SIZE)
    output = OutputSpec(head="yolo-v8", classes=("a", "b"))


@pytest.fixture
def cuda() -> Cuda:
    try:
        found = open_cuda()
        if devices(found):
            return found
        why = "CUDA finds none"
    except EngineFault as error:
        why = str(error)
    pytest.skip(f"there is no GPU: {why}")


@pytest.fixture(params=["tensorrt", "tensorrt-rtx", "onnxruntime-cuda"])
def name(cuda: Cuda, request: pytest.FixtureRequest) -> str:
    found = str(request.param)
    if RUNTIMES[found].probe() is None:
        pytest.skip(f"{found} is not installed beside the GPU")
    return found


@pytest.fixture
def engine_bytes(name: str, tmp_path: Path) -> bytes:
    """Returns what the runtime loads: ONNX, or a plan that is built on this GPU."""
    command = board_python.maker(name)
    if command is None:
        return tiny_onnx()
    onnx, plan = tmp_path / "model.onnx", tmp_path / "model.plan"
    onnx.write_bytes(tiny_onnx())
    with onnx.open("rb") as source, plan.open("wb") as out:
        job = order(source.fileno(), out.fileno(), OnDevice(int8=False))
        done = subprocess.run(command, input=job, capture_output=True,
                              check=True, pass_fds=(source.fileno(), out.fileno()))  # fmt: skip
    assert json.loads(done.stdout)["ok"], done.stdout
    return plan.read_bytes()


@pytest.fixture
def engine(name: str, engine_bytes: bytes, tmp_path: Path) -> Iterator[Engine]:
    found = load(name, engine_bytes, tmp_path)
    yield found
    found.close()


def load(name: str, data: bytes, folder: Path) -> Engine:
    store = BlobStore(folder / "blobs")
    blobs: Any = {"engine": store.open_verified(put(store, data))}
    return RUNTIMES[name].load(blobs, Spec(), threads=1)


def on_the_processor(folder: Path) -> Engine:
    return load("onnxruntime", tiny_onnx(), folder)


def test_bytes_come_back_as_they_went_up_and_memory_is_given_back(cuda: Cuda) -> None:
    stream, event = cuda.make("stream", 1), cuda.make("event", 3)
    before = memory_of(cuda)[0]
    size = 64 * MIB
    up, down, device = (
        cuda.make("pinned", size),
        cuda.make("pinned", size),
        cuda.make("device", size),
    )
    assert before - memory_of(cuda)[0] >= size
    ctypes.memset(up, 0x5A, size)
    cuda.copy(device, up, size, stream, up=True)
    cuda.copy(down, device, size, stream, up=False)
    cuda.wait(event, stream)
    assert ctypes.string_at(down, size) == b"\x5a" * size
    for kind, handle in (("pinned", up), ("pinned", down), ("device", device),
                         ("event", event), ("stream", stream)):  # fmt: skip
        cuda.free(kind, handle)
    assert before - memory_of(cuda)[0] < MIB
    with pytest.raises(EngineFault, match="out of memory"):
        cuda.make("device", 1 << 50)
    assert devices(cuda) >= 1, "and goes on"


def test_it_answers_as_the_processor_does(engine: Engine, tmp_path: Path) -> None:
    here = on_the_processor(tmp_path)
    for scale in (1.0, 0.25):
        batch = BATCH * np.float32(scale)
        np.testing.assert_allclose(engine.infer(batch), here.infer(batch), atol=2e-2)
    here.close()


def test_it_is_swapped_in_a_loop_and_leaves_nothing_behind(
    cuda: Cuda, name: str, engine_bytes: bytes, tmp_path: Path
) -> None:
    def detector(release: str) -> Detector:
        return Detector(load(name, engine_bytes, tmp_path), Spec(), slot_of(release))

    picture = np.full((40, 40, 3), 90, np.uint8)
    hot = HotEngine(detector("0"))
    left: list[int] = []
    for at in range(1, 12):
        hot.load(lambda at=at: detector(str(at)))  # type: ignore[misc]
        hot.swap()
        answer = hot.infer(picture)
        assert answer is not None
        assert answer.slot.release == str(at)
        hot.drop("previous")
        left.append(memory_of(cuda)[0])
    hot.close()
    assert left[3] - left[-1] < 8 * MIB
