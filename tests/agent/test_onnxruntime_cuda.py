"""ONNX Runtime on the GPU is a runtime of its own."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from kedge_agent.blobs import BlobStore
from kedge_agent.errors import EngineError, EngineGone
from kedge_agent.gpu.engine_host import Cuda, EngineFault
from kedge_agent.runtimes import tensorrt
from kedge_agent.runtimes.base import RuntimeFacts
from kedge_agent.runtimes.onnxruntime_cuda import OnnxRuntimeCuda
from tests.agent.test_tensorrt import BATCH, Spec, blobs
from tests.sim.gpu.cudart import FakeCudart


@pytest.fixture
def store(tmp_path: Path) -> BlobStore:
    return BlobStore(tmp_path / "blobs")


@pytest.fixture
def cudart() -> FakeCudart:
    return FakeCudart()


class Ort:
    """As much of onnxruntime-gpu as is asked for."""

    __version__ = "1.23.0"

    def __init__(self, providers: list[str], loaded: list[str]) -> None:
        self.providers, self.loaded, self.given = providers, loaded, []
        self.falls_back, self.fails = True, ""

    class SessionOptions: ...

    def get_available_providers(self) -> list[str]:
        return self.providers

    def InferenceSession(self, path: str, options: Any, providers: list[Any]) -> Any:
        self.given = providers
        return SimpleNamespace(
            get_providers=lambda: self.loaded,
            get_inputs=lambda: [SimpleNamespace(name="images")],
            get_outputs=lambda: [SimpleNamespace(name="output0")],
            disable_fallback=lambda: setattr(self, "falls_back", False), run=self.run,
        )  # fmt: skip

    def run(self, names: list[str], fed: dict[str, Any]) -> list[Any]:
        """Answers, if need be on the processor, as the vendor's session does."""
        if self.fails and not self.falls_back:
            raise RuntimeError(self.fails)
        return [fed["images"].reshape(1, -1)[:, :96].reshape(1, 6, 16)]


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


@pytest.mark.parametrize(
    ("said", "kind"),
    [
        ("CUDA failure 700: an illegal memory access was encountered", EngineGone),
        ("CUDA error 719: unspecified launch failure", EngineGone),
        ("CUDNN_STATUS_EXECUTION_FAILED", EngineError),
    ],
)
def test_a_frame_that_fails_on_the_gpu_is_not_done_in_secret_on_the_processor(
    store: BlobStore, cudart: FakeCudart, monkeypatch: pytest.MonkeyPatch, said: str, kind: Any
) -> None:
    ort = Ort(BOTH, BOTH)
    monkeypatch.setitem(sys.modules, "onnxruntime", ort)
    engine = OnnxRuntimeCuda(lambda: Cuda(cudart)).load(blobs(store, b"onnx"), Spec(), threads=1)
    ort.fails = said
    with pytest.raises(EngineError) as failed:
        engine.infer(BATCH)
    assert type(failed.value) is kind


def test_this_machine_offers_the_gpu_only_if_it_has_one() -> None:
    found = OnnxRuntimeCuda().probe()
    try:
        has_gpu = tensorrt.devices(tensorrt.open_cuda()) > 0
    except EngineFault:
        has_gpu = False
    assert found is None or has_gpu
