"""TensorRT on the board: both of its APIs, every failure, the loop above them; without a GPU."""

from __future__ import annotations

import ctypes
import gc
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kedge_agent.blobs import BlobStore, VerifiedBlob
from kedge_agent.detector import Detector
from kedge_agent.errors import EngineError, EngineGone
from kedge_agent.gpu import engine_host
from kedge_agent.gpu.engine_host import ContextLost, Cuda, EngineFault, OutOfMemory
from kedge_agent.hotswap import HotEngine
from kedge_agent.runtimes import tensorrt
from kedge_agent.runtimes.base import Dispatching, Runtime, RuntimeFacts
from kedge_agent.runtimes.tensorrt import TensorRt
from kedge_shared.device_classes import RuntimeRange
from kedge_shared.manifest import InputSpec, OutputSpec
from tests.sim.engine import slot_of
from tests.sim.gpu import fake_tensorrt
from tests.sim.gpu.cudart import FakeCudart
from tests.sim.gpu.fake_tensorrt import header_of, plan_of
from tests.sim.store import put

VERSIONS = ("8.2.1.9", "8.5.2.2", "10.3.0.26", "11.4.0.7")
BATCH = np.random.default_rng(0).random((1, 3, 32, 32), dtype=np.float32)
HOST_FILE = Path(engine_host.__file__)


class Spec:
    runtime = RuntimeRange(name="tensorrt", range=">=8")
    input = InputSpec(height=32, width=32)
    output = OutputSpec(head="yolo-v8", classes=("a", "b"))


@pytest.fixture
def store(tmp_path: Path) -> BlobStore:
    return BlobStore(tmp_path / "blobs")


@pytest.fixture
def cudart() -> FakeCudart:
    return FakeCudart()


@pytest.fixture
def loads(
    store: BlobStore, cudart: FakeCudart, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Any]:
    """Loads a plan by the runtime, over the fakes of a version."""

    def load(plan: bytes, version: str = VERSIONS[2], lean: str = "") -> Any:
        module = fake_tensorrt.module(version, cudart)
        monkeypatch.setitem(sys.modules, "tensorrt", module)
        runtime: Runtime = TensorRt("tensorrt", "tensorrt", lambda: Cuda(cudart))
        if lean:
            assert isinstance(runtime, Dispatching)
            runtime = runtime.through(lean)
        return runtime.load(blobs(store, plan), Spec(), threads=1)

    return load


def blobs(store: BlobStore, data: bytes) -> dict[Any, VerifiedBlob]:
    return {"engine": store.open_verified(put(store, data))}


# -- an engine in this process -------------------------------------------------------------------


@pytest.mark.parametrize("version", VERSIONS)
def test_every_release_answers_and_leaves_nothing_behind(
    loads: Callable[..., Any], cudart: FakeCudart, version: str
) -> None:
    engine = loads(plan_of(), version)
    for scale in (1.0, 0.5):
        found = engine.infer(BATCH * np.float32(scale))
        assert found.shape == (1, 6, 16)
        assert np.array_equal(found.reshape(-1), (BATCH * np.float32(scale)).reshape(-1)[:96])
    assert engine.memory_mb == pytest.approx(1 + (BATCH.nbytes + 96 * 4) / 2**20)
    engine.close()
    assert cudart.live == {}
    with pytest.raises(EngineError, match="closed"):
        engine.infer(BATCH)


@pytest.mark.parametrize("version", VERSIONS)
def test_an_input_that_is_left_open_is_fixed_to_what_the_manifest_feeds(
    loads: Callable[..., Any], version: str
) -> None:
    tensors = [["in", True, [-1, 3, -1, -1], "float32"], ["out", False, [1, 6, 16], "float32"]]
    assert loads(plan_of(tensors=tensors), version).infer(BATCH).shape == (1, 6, 16)
    tensors[0][2] = [-1, 3, 64, 64]
    with pytest.raises(EngineError, match="out of the profile"):
        loads(plan_of(tensors=tensors), version)


@pytest.mark.parametrize("version", ["8.6.3.1", *VERSIONS[2:]])
def test_an_older_releases_plan_is_loaded_by_that_releases_lean_runtime(
    loads: Callable[..., Any], cudart: FakeCudart, version: str
) -> None:
    """The fake holds that neither runtime allows code for the host, and that both live."""
    plan, lean = plan_of(version="8.6.2"), "/usr/lib/x86_64-linux-gnu/libnvinfer_lean.so."
    engine = loads(plan, version, lean + "8.6.2")
    assert np.array_equal(engine.infer(BATCH).reshape(-1), BATCH.reshape(-1)[:96])
    engine.close()
    for other, said in (("8.6.1", "Version tag"), ("none", "does not load the lean runtime")):
        with pytest.raises(EngineError, match=said):
            loads(plan, version, lean + other)
    with pytest.raises(EngineError, match="Version tag"):
        loads(plan, version)
    assert cudart.live == {}


def test_a_release_before_lean_runtimes_says_so(loads: Callable[..., Any]) -> None:
    with pytest.raises(EngineError, match="does not load the lean runtime"):
        loads(plan_of(), "8.5.2.2", "/usr/lib/libnvinfer_lean.so.8.6.2")


def test_the_first_output_is_read_by_its_name_wherever_it_stands(loads: Callable[..., Any]) -> None:
    tensors = [
        ["late", False, [1, 6, 16], "float32"], ["in", True, [1, 3, 32, 32], "float32"],
        ["masks", False, [1, 2], "float32"],
    ]  # fmt: skip
    assert loads(plan_of(tensors=tensors)).infer(BATCH).shape == (1, 6, 16)


@pytest.mark.parametrize(
    ("plan", "said"),
    [
        (b"ftrt", "cut off"),
        (b"no plan at all", "no TensorRT plan"),
        (plan_of(bad="plugin"), "EfficientNMS_TRT"),
        (plan_of(version="9.9.9"), "Version tag"),
        (plan_of() + b"\x7fELF\x02\x01\x01" + bytes(11) + b"\x3e\x00" + bytes(40),
         "code for the processor"),
        (plan_of(tensors=[["in", True, [1, 3, 32, 32], "float16"], ["out", False, [1], "float32"]]),
         "in is .*float16, Kedge feeds"),
        (plan_of(tensors=[["in", True, [1], "float32"]]), "1 inputs and 0 outputs"),
        (plan_of(tensors=[["in", True, [1], "float32"], ["out", False, [1, -1], "float32"]]),
         "out has the shape"),
        (plan_of(tensors=[["in", True, [1], "float32"], ["out", False, [-1, -1], "float32"]]),
         "out has the shape"),
        (plan_of(bad="address"), "does not take the memory"),
    ],
)  # fmt: skip
def test_what_is_not_taken_is_named_and_leaves_nothing_behind(
    loads: Callable[..., Any], cudart: FakeCudart, plan: bytes, said: str
) -> None:
    with pytest.raises(EngineError, match=said):
        loads(plan)
    assert cudart.live == {}


def test_what_is_no_plan_never_comes_near_tensorrt(
    store: BlobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    elf = plan_of() + b"\x7fELF\x02\x01\x01" + bytes(11) + b"\x3e\x00" + bytes(40)
    for data in (b"ftrt", b"onnx", elf):
        with pytest.raises(EngineError, match=r"cut off|no TensorRT plan|code for"):
            TensorRt("tensorrt", "tensorrt").load(blobs(store, data), Spec(), threads=1)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("bad", ["short", "context"])
def test_want_of_memory_is_the_boards_and_not_the_engines(
    loads: Callable[..., Any], cudart: FakeCudart, bad: str, version: str
) -> None:
    """TensorRT 8 ends with a line that says nothing; what it was is a line before."""
    with pytest.raises(MemoryError, match=r"(?i)memory"):
        loads(plan_of(bad=bad), version)
    assert cudart.live == {}


@pytest.mark.parametrize("version", VERSIONS)
def test_the_first_of_tensorrts_errors_is_told(loads: Callable[..., Any], version: str) -> None:
    for bad, said in (("plugin", "EfficientNMS_TRT"), ("own thread", "fell off the bus")):
        with pytest.raises(EngineError, match=f"does not take the plan: .*{said}"):
            loads(plan_of(bad=bad), version)


def test_what_one_call_said_is_no_reason_of_another(
    loads: Callable[..., Any], cudart: FakeCudart
) -> None:
    """Neither of an earlier frame, nor of an engine that is loaded at the same time."""
    engine = loads(plan_of(bad="mutters"))
    for _ in range(2):
        engine.infer(BATCH)
    with pytest.raises(EngineError, match="no reason was given"):
        engine.infer(BATCH)

    def other() -> None:
        with ThreadPoolExecutor(1) as pool:
            refused.append(pool.submit(loads, plan_of(bad="plugin")).exception())

    refused: list[BaseException | None] = []
    cudart.meanwhile = other
    with pytest.raises(MemoryError, match="OutOfMemory"):
        loads(plan_of(bad="short"))
    assert "EfficientNMS_TRT" in str(refused[0])
    assert isinstance(refused[0], EngineError)


@pytest.mark.parametrize(("status", "error"), [(35, EngineError), (2, MemoryError)])
def test_a_tensorrt_that_does_not_start_says_why(
    loads: Callable[..., Any], cudart: FakeCudart, status: int, error: type[Exception]
) -> None:
    """Its bindings raise a TypeError, whatever it was; the logger was told."""
    cudart.starts = status
    with pytest.raises(error, match=f"does not start: CUDA initialization failure.*{status}"):
        loads(plan_of())
    cudart.starts = 0
    assert loads(plan_of()).infer(BATCH).shape == (1, 6, 16)


def test_the_first_logger_lives_as_long_as_tensorrt(
    loads: Callable[..., Any], cudart: FakeCudart, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The fake holds that it does; here the bindings stay the same over three engines."""
    module = fake_tensorrt.module(VERSIONS[2], cudart)
    monkeypatch.setattr(fake_tensorrt, "module", lambda *_: module)
    for _ in range(3):
        loads(plan_of()).close()
        gc.collect()


def test_buffers_that_do_not_fit_give_back_those_that_did(
    loads: Callable[..., Any], cudart: FakeCudart
) -> None:
    cudart.limit = BATCH.nbytes + 100
    with pytest.raises(MemoryError, match="cudaMalloc: out of memory"):
        loads(plan_of())
    assert cudart.live == {}


def test_a_hundred_loads_that_fail_leave_nothing_behind(
    loads: Callable[..., Any], cudart: FakeCudart
) -> None:
    loads(plan_of()).close()
    for at in range(100):
        cudart.limit = BATCH.nbytes + 100 if at % 2 else 1 << 30
        with pytest.raises((EngineError, MemoryError)):
            loads(plan_of(bad="" if at % 2 else "plugin"))
    assert cudart.live == {}


def test_a_header_of_ultralytics_is_behind_the_engine(loads: Callable[..., Any]) -> None:
    assert loads(header_of(plan_of())).infer(BATCH).shape == (1, 6, 16)
    with pytest.raises(EngineError, match="no TensorRT plan"):
        loads(header_of(b"something else that is no plan"))


@pytest.mark.parametrize(
    ("bad", "error", "said"),
    [("refuses", EngineError, "enqueue failed"), ("launch", EngineGone, "illegal memory access"),
     ("async", EngineGone, "illegal memory access")],
)  # fmt: skip
def test_a_frame_it_fails_on(
    loads: Callable[..., Any], bad: str, error: type[EngineError], said: str
) -> None:
    engine = loads(plan_of(bad=bad))
    for _ in range(2):
        engine.infer(BATCH)
    with pytest.raises(error, match=said):
        engine.infer(BATCH)
    engine.close()


def test_a_batch_of_another_size_is_not_written_past_the_buffers(
    loads: Callable[..., Any],
) -> None:
    with pytest.raises(EngineError, match="not what the engine is fed"):
        loads(plan_of()).infer(np.zeros((1, 3, 64, 64), np.float32))


def test_a_swap_and_a_failure_in_the_loop(loads: Callable[..., Any], cudart: FakeCudart) -> None:
    def detector(name: str, **more: Any) -> Detector:
        return Detector(loads(plan_of(**more)), Spec(), slot_of(name))

    image = np.full((40, 40, 3), 90, np.uint8)
    hot = HotEngine(detector("old"))
    hot.load(lambda: detector("new", bad="refuses", at=4))
    hot.swap()
    names = []
    for _ in range(6):
        answer = hot.infer(image)
        assert answer is not None
        names.append(answer.slot.release)
    assert names == ["new"] * 3 + ["old"] * 3
    assert "enqueue failed" in hot.fell_back
    hot.close()
    assert cudart.live == {}


def test_it_is_offered_where_bindings_and_a_gpu_are(
    cudart: FakeCudart, monkeypatch: pytest.MonkeyPatch
) -> None:
    runtime = TensorRt("tensorrt", "tensorrt", lambda: Cuda(cudart))
    monkeypatch.setitem(sys.modules, "tensorrt", fake_tensorrt.module("10.3.0.26", cudart))
    assert runtime.probe() == RuntimeFacts("tensorrt", "10.3.0.26")
    cudart.fails["cudaGetDeviceCount"] = 100
    assert runtime.probe() is None
    cudart.fails.clear()
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    assert runtime.probe() is None


# -- CUDA itself ---------------------------------------------------------------------------------


def test_errors_of_cuda_are_told_apart(cudart: FakeCudart) -> None:
    cuda = Cuda(cudart)
    assert tensorrt.devices(cuda) == 1
    assert tensorrt.memory_of(cuda) == (1 << 30, 1 << 30)
    lost = [(each, ContextLost) for each in (220, 700, 719, 721, 999)]
    for status, error in ((2, OutOfMemory), (100, EngineFault), *lost):
        cudart.fails["cudaStreamCreateWithFlags"] = status
        with pytest.raises(error, match=rf"\({status}\)") as told:
            cuda.make("stream", 1)
        assert type(told.value) is error
        cuda.do("cudaGetLastError")  # the next call is not blamed for it


def test_on_a_real_cuda_runtime_every_function_is_there() -> None:
    try:
        cuda = tensorrt.open_cuda()
    except EngineFault:
        pytest.skip("no libcudart; pip install nvidia-cuda-runtime brings one")
    library = cuda._library
    names = ["cudaEventRecord", "cudaEventSynchronize", "cudaStreamSynchronize", "cudaMemcpyAsync",
             "cudaGetLastError", "cudaMemGetInfo"]  # fmt: skip
    names += [name for make, _, free in engine_host._KINDS.values() for name in (make, free)]
    assert all(getattr(library, each) for each in names)
    try:
        assert tensorrt.devices(cuda) >= 1
    except EngineFault as error:
        # Without a driver or a GPU: told, not crashed.
        assert "cudaGetDeviceCount: " in str(error)
        for call in (
            *(partial(cuda.make, each, 3) for each in engine_host._KINDS),
            lambda: tensorrt.memory_of(cuda),
        ):
            with pytest.raises(EngineFault, match=r"cuda\w+: .+ \(\d+\)"):
                call()


def test_a_board_without_cuda_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def no(name: str) -> None:
        raise OSError(name)

    monkeypatch.setattr(ctypes, "CDLL", no)
    monkeypatch.setattr(sys, "path", [])
    with pytest.raises(EngineFault, match="libcudart"):
        tensorrt.open_cuda()
