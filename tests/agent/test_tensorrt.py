"""TensorRT on the board: both of its APIs, every failure, the loop above them; without a GPU."""

from __future__ import annotations

import ast
import ctypes
import importlib.util
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from kedge_agent import sandbox
from kedge_agent.blobs import BlobStore, VerifiedBlob
from kedge_agent.detector import Detector
from kedge_agent.errors import EngineError, EngineGone
from kedge_agent.gpu import board_python, engine_host
from kedge_agent.gpu.engine_host import ContextLost, Cuda, EngineFault, OutOfMemory
from kedge_agent.hosting import wire
from kedge_agent.hosting.process import Host
from kedge_agent.hotswap import HotEngine
from kedge_agent.runtimes import tensorrt
from kedge_agent.runtimes.base import RuntimeFacts
from kedge_agent.runtimes.onnxruntime_cuda import OnnxRuntimeCuda
from kedge_agent.runtimes.tensorrt import HostedTensorRt, TensorRt
from kedge_shared.device_classes import RuntimeRange
from kedge_shared.manifest import InputSpec, OutputSpec
from tests.sim.engine import FRAME, SimDetector, slot_of
from tests.sim.gpu import fake_tensorrt, old_host
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

    def load(plan: bytes, version: str = VERSIONS[2]) -> Any:
        module = fake_tensorrt.module(version, cudart)
        monkeypatch.setitem(sys.modules, "tensorrt", module)
        runtime = TensorRt("tensorrt", "tensorrt", lambda: Cuda(cudart))
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
        (plan_of() + b"\x7fELF" + bytes(14) + b"\x3e\x00" + bytes(40), "code for the processor"),
        (plan_of(tensors=[["in", True, [1, 3, 32, 32], "float16"], ["out", False, [1], "float32"]]),
         "in is .*float16, Kedge feeds"),
        (plan_of(tensors=[["in", True, [1], "float32"]]), "1 inputs and 0 outputs"),
        (plan_of(tensors=[["in", True, [1], "float32"], ["out", False, [1, -1], "float32"]]),
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
    elf = plan_of() + b"\x7fELF" + bytes(14) + b"\x3e\x00" + bytes(40)
    for data in (b"ftrt", b"onnx", elf):
        with pytest.raises(EngineError, match=r"cut off|no TensorRT plan|code for"):
            TensorRt("tensorrt", "tensorrt").load(blobs(store, data), Spec(), threads=1)


@pytest.mark.parametrize("bad", ["short", "context"])
def test_want_of_memory_is_the_boards_and_not_the_engines(
    loads: Callable[..., Any], cudart: FakeCudart, bad: str
) -> None:
    with pytest.raises(MemoryError, match=r"(?i)memory"):
        loads(plan_of(bad=bad))
    assert cudart.live == {}


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


# -- CUDA itself ---------------------------------------------------------------------------------


def test_errors_of_cuda_are_told_apart(cudart: FakeCudart) -> None:
    cuda = Cuda(cudart)
    assert cuda.devices() == 1
    assert cuda.memory() == (1 << 30, 1 << 30)
    for status, error in ((2, OutOfMemory), (100, EngineFault), (700, ContextLost)):
        cudart.fails["cudaStreamCreateWithFlags"] = status
        with pytest.raises(error, match=rf"\({status}\)") as told:
            cuda.stream()
        assert type(told.value) is error
        cuda.do("cudaGetLastError")  # the next call is not blamed for it


def test_on_a_real_cuda_runtime_every_function_is_there() -> None:
    try:
        cuda = tensorrt.open_cuda()
    except EngineFault:
        pytest.skip("no libcudart; pip install nvidia-cuda-runtime brings one")
    library = cuda._library
    names = [*engine_host._FREES.values(), "cudaEventRecord", "cudaEventSynchronize",
             "cudaEventCreateWithFlags", "cudaStreamCreateWithFlags", "cudaMalloc",
             "cudaMallocHost", "cudaMemcpyAsync", "cudaGetLastError", "cudaMemGetInfo"]  # fmt: skip
    assert all(getattr(library, each) for each in names)
    try:
        assert cuda.devices() >= 1
    except EngineFault as error:
        # Without a driver or a GPU: told, not crashed.
        assert "cudaGetDeviceCount: " in str(error)
        for call in (cuda.memory, cuda.stream, cuda.event, lambda: cuda.device_memory(4)):
            with pytest.raises(EngineFault, match=r"cuda\w+: .+ \(\d+\)"):
                call()


def test_a_board_without_cuda_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def no(name: str) -> None:
        raise OSError(name)

    monkeypatch.setattr(ctypes, "CDLL", no)
    monkeypatch.setattr(sys, "path", [])
    with pytest.raises(EngineFault, match="libcudart"):
        tensorrt.open_cuda()


# -- on another Python ---------------------------------------------------------------------------


def pythons() -> list[str]:
    """Returns this Python and those that JetPack brings, where this machine has them."""
    found = [sys.executable]
    for name in ("python3.6", "python3.8"):
        places = [shutil.which(name), *Path.home().glob(f".pyenv/versions/{name[6:]}.*/bin/python")]
        found += [str(each) for each in places if each and runs(str(each))][:1]
    return found


def runs(python: str) -> bool:
    try:
        return subprocess.run([python, "-V"], capture_output=True, check=False).returncode == 0
    except OSError:
        return False


@pytest.fixture(params=[("8.2.1.9"), ("8.5.2.2"), ("10.3.0.26")])
def version(request: pytest.FixtureRequest) -> str:
    return str(request.param)


#: As walled.py does it; what stands in for TensorRT is readable too.
_WALLED = f"""
import sys
from pathlib import Path
from kedge_agent.hosting import walled
walled.become(sys.argv[1:], [Path({str(Path(old_host.__file__).parent)!r})])
"""


def host_of(python: str, version: str, *, walls: bool = True) -> Host:
    command = (python, "-I", str(old_host.__file__), version, str(HOST_FILE))
    return Host((sys.executable, "-c", _WALLED, *command) if walls else command)


@pytest.fixture
def hosted(store: BlobStore) -> Iterator[Callable[..., Any]]:
    made: list[Any] = []

    def load(
        plan: bytes, python: str = sys.executable, version: str = "8.2.1.9", **more: Any
    ) -> Any:
        runtime = HostedTensorRt(Path(python), host_of(python, version, **more))
        made.append(runtime.load(blobs(store, plan), Spec(), threads=1))
        return made[-1]

    yield load
    for each in made:
        each.close()
        assert each._process.poll() is not None


@pytest.mark.parametrize("python", pythons())
def test_a_boards_own_python_runs_the_engine(
    hosted: Callable[..., Any], python: str, version: str
) -> None:
    engine = hosted(header_of(plan_of()), python, version, walls=False)
    for scale in (1.0, 0.5):
        found = engine.infer(BATCH * np.float32(scale))
        assert found.shape == (1, 6, 16)
        assert np.array_equal(found.reshape(-1), (BATCH * np.float32(scale)).reshape(-1)[:96])
    assert engine.memory_mb == pytest.approx(1 + (BATCH.nbytes + 96 * 4) / 2**20)


def test_its_process_stands_behind_the_walls(hosted: Callable[..., Any]) -> None:
    engine = hosted(plan_of())
    status = Path(f"/proc/{engine.pid}/status").read_text()
    assert "NoNewPrivs:\t1" in status
    assert Path(f"/proc/{engine.pid}/oom_score_adj").read_text().strip() == "1000"
    told = subprocess.run([sys.executable, "-m", "kedge_agent.sandbox"], capture_output=True,
                          text=True, check=True)  # fmt: skip
    if "calls" in told.stdout.split():
        assert "Seccomp:\t2" in status
    if "network" in told.stdout.split():
        mine = Path("/proc/self/ns/net").readlink()
        assert Path(f"/proc/{engine.pid}/ns/net").readlink() != mine
    assert np.array_equal(engine.infer(BATCH).reshape(-1), BATCH.reshape(-1)[:96])


@pytest.mark.parametrize(
    ("bad", "error", "said"),
    [("refuses", EngineError, "enqueue failed"), ("async", EngineGone, "illegal memory access"),
     ("exit", EngineGone, "status 3")],
)  # fmt: skip
def test_what_becomes_of_the_process_is_the_engines_error_and_the_older_one_answers(
    hosted: Callable[..., Any], bad: str, error: type[EngineError], said: str
) -> None:
    engine = hosted(plan_of(bad=bad), walls=False)
    hot = HotEngine(SimDetector("old"))  # type: ignore[arg-type]
    hot.load(lambda: Detector(engine, Spec(), slot_of("new")))
    hot.swap()
    names = [answer.slot.release for _ in range(5) if (answer := hot.infer(FRAME)) is not None]
    assert names == ["new"] * 2 + ["old"] * 3
    assert said in hot.fell_back
    if error is EngineGone:
        with pytest.raises(EngineGone):
            engine.infer(BATCH)
    hot.close()


@pytest.mark.parametrize(
    ("plan", "error", "said"),
    [
        (plan_of(bad="plugin"), EngineError, "EfficientNMS_TRT"),
        (plan_of(bad="short"), MemoryError, "OutOfMemory"),
        (b"ftrt", EngineError, "cut off"),
    ],
)
def test_what_the_process_does_not_take(
    hosted: Callable[..., Any], plan: bytes, error: type[Exception], said: str
) -> None:
    with pytest.raises(error, match=said):
        hosted(plan, walls=False)


def test_processes_can_be_started_before_the_walls_of_their_user_stand(store: BlobStore) -> None:
    host = host_of(sys.executable, "8.2.1.9", walls=False)
    runtime = HostedTensorRt(Path(sys.executable), host)
    runtime.reserve(1)
    waiting = host._waiting[0].process.pid
    engine: Any = runtime.load(blobs(store, plan_of()), Spec(), threads=1)
    assert engine.pid == waiting
    assert host._waiting == []
    engine.close()


def test_the_hosts_words_are_the_wires() -> None:
    assert engine_host.HEADER.format == wire._HEADER.format
    for name in ("MAGIC", "VERSION", "LOAD", "READY", "INFER", "ANSWER", "FAILED", "ENGINE",
                 "MEMORY", "LOST"):  # fmt: skip
        assert getattr(engine_host, name) == getattr(wire, name), name


@pytest.mark.parametrize("name", ["engine_host.py", "plan_maker.py"])
def test_the_files_for_other_pythons_are_python_36_without_dependencies(name: str) -> None:
    source = HOST_FILE.with_name(name).read_text()
    tree = ast.parse(source, feature_version=(3, 6))
    modules = {each.name.split(".")[0] for node in ast.walk(tree) if isinstance(node, ast.Import)
               for each in node.names}  # fmt: skip
    modules |= {str(node.module) for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert modules <= set(sys.stdlib_module_names)


def test_the_boards_python_is_found_by_its_bindings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    assert isinstance(tensorrt.classic(tmp_path), TensorRt)
    (tmp_path / "usr/lib/python3.8/dist-packages/tensorrt").mkdir(parents=True)
    (tmp_path / "usr/bin").mkdir()
    assert isinstance(tensorrt.classic(tmp_path), TensorRt), "bindings without their Python"
    (tmp_path / "usr/bin/python3.8").touch()
    found = tensorrt.classic(tmp_path)
    assert isinstance(found, HostedTensorRt)
    assert found._python == tmp_path / "usr/bin/python3.8"
    assert found.probe() is None
    monkeypatch.setenv(board_python.PYTHON_ENV, "/opt/python")
    assert board_python.find(tmp_path) == Path("/opt/python")
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: True)
    assert isinstance(tensorrt.classic(tmp_path), TensorRt), "bindings beside the agent come first"


def test_a_gpus_group_is_kept_when_the_user_changes(tmp_path: Path) -> None:
    assert sandbox._gpu_groups(tmp_path) == []
    (tmp_path / "nvmap").touch()
    own = os.getgid()
    assert sandbox._gpu_groups(tmp_path) == ([own] if own else [])


# -- ONNX Runtime on the GPU ---------------------------------------------------------------------


class Ort:
    """As much of onnxruntime-gpu as is asked for."""

    __version__ = "1.23.0"

    def __init__(self, providers: list[str], loaded: list[str]) -> None:
        self.providers, self.loaded, self.given = providers, loaded, []

    class SessionOptions: ...

    def get_available_providers(self) -> list[str]:
        return self.providers

    def InferenceSession(self, path: str, options: Any, providers: list[Any]) -> Any:
        self.given = providers
        return SimpleNamespace(
            get_providers=lambda: self.loaded,
            get_inputs=lambda: [SimpleNamespace(name="images")],
            get_outputs=lambda: [SimpleNamespace(name="output0")],
            run=lambda names, fed: [fed["images"].reshape(1, -1)[:, :96].reshape(1, 6, 16)],
        )


BOTH = ["CUDAExecutionProvider", "CPUExecutionProvider"]


def test_the_gpu_is_a_runtime_of_its_own_and_never_silently_the_processor(
    store: BlobStore, cudart: FakeCudart, monkeypatch: pytest.MonkeyPatch
) -> None:
    runtime, loads = OnnxRuntimeCuda(lambda: Cuda(cudart)), blobs(store, b"onnx")
    ort = Ort(BOTH, BOTH)
    monkeypatch.setitem(sys.modules, "onnxruntime", ort)
    assert runtime.probe() == RuntimeFacts("onnxruntime-cuda", "1.23.0")
    engine = runtime.load(loads, Spec(), threads=1)
    assert np.array_equal(engine.infer(BATCH).reshape(-1), BATCH.reshape(-1)[:96])
    assert ort.given[0][0] == "CUDAExecutionProvider"
    ort.loaded = BOTH[1:]
    with pytest.raises(EngineError, match="does not get onto the GPU"):
        runtime.load(loads, Spec(), threads=1)
    cudart.fails["cudaGetDeviceCount"] = 100
    assert runtime.probe() is None, "no GPU"
    ort.providers = BOTH[1:]
    with pytest.raises(EngineError, match="onnxruntime-gpu"):
        runtime.load(loads, Spec(), threads=1)


def test_this_machine_offers_the_gpu_only_if_it_has_one() -> None:
    found = OnnxRuntimeCuda().probe()
    try:
        has_gpu = tensorrt.open_cuda().devices() > 0
    except EngineFault:
        has_gpu = False
    assert found is None or has_gpu
