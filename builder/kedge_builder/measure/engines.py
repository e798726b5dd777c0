"""The builder's own hands on each runtime: load a file as a board would, run one frame."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from kedge_shared.detections import Array
from kedge_shared.manifest import FileRole


class Engine(Protocol):
    """A loaded engine."""

    def infer(self, batch: Array) -> Array:
        """Runs (1, 3, height, width) float32 and returns the raw output."""
        ...


@dataclass(frozen=True)
class EngineFile:
    """One file of an engine.

    Attributes:
        role: As in the manifest.
        path: Where it lies.
    """

    role: FileRole
    path: Path


def load(
    runtime: str, files: Sequence[EngineFile], threads: int, *, literal: bool = False
) -> Engine:
    """Loads an engine in its runtime.

    Args:
        runtime: ``onnxruntime`` or ``openvino``.
        files: Of the engine.
        threads: It may use.
        literal: Without graph optimizations, to see how another kernel would round.
    """
    paths = {each.role: each.path for each in files}
    if runtime == "openvino":
        return OpenVinoEngine(paths["engine"], threads, literal=literal)
    return OnnxRuntimeEngine(paths["engine"], threads, literal=literal)


def version(runtime: str) -> str:
    """Returns the installed version of a runtime."""
    if runtime == "openvino":
        import openvino

        return str(openvino.__version__)
    import onnxruntime

    return str(onnxruntime.__version__)


class OnnxRuntimeEngine:
    """ONNX Runtime on the CPU."""

    def __init__(self, path: Path, threads: int, *, literal: bool = False) -> None:
        import onnxruntime as ort

        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        if literal:
            options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
        self._session: Any = ort.InferenceSession(
            str(path), options, providers=["CPUExecutionProvider"]
        )
        self._input = self._session.get_inputs()[0].name

    def infer(self, batch: Array) -> Array:
        """Runs one batch."""
        return np.asarray(self._session.run(None, {self._input: batch})[0], dtype=np.float32)


class OpenVinoEngine:
    """OpenVINO on the CPU; reads its own IR and ONNX."""

    def __init__(self, path: Path, threads: int, *, literal: bool = False) -> None:
        import openvino as ov

        config: dict[str, Any] = {
            "INFERENCE_NUM_THREADS": threads,
            "NUM_STREAMS": 1,
            "PERFORMANCE_HINT": "LATENCY",
        }
        if literal:
            config["INFERENCE_PRECISION_HINT"] = "f32"
        self._compiled: Any = ov.Core().compile_model(str(path), "CPU", config)
        self._request: Any = self._compiled.create_infer_request()

    def infer(self, batch: Array) -> Array:
        """Runs one batch."""
        self._request.infer([batch])
        return np.array(self._request.get_output_tensor(0).data, dtype=np.float32)
