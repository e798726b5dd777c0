"""The builder's own hands on each runtime: load a file as a board would, run one frame."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from kedge_shared.detections import Array
from kedge_shared.errors import InputError, KedgeError
from kedge_shared.ids import sha256_hex
from kedge_shared.manifest import FileRole

#: How ONNX Runtime and OpenVINO say that an operator is unknown to them.
_MISSING_OPERATOR = (
    re.compile(r"Fatal error: ([\w.:-]+?)\(-?\d+\) is not a registered function/op"),
    re.compile(r"Could not find an implementation for ([\w.:-]+)\("),
    re.compile(r"No Op registered for ([\w.:-]+)"),
    re.compile(
        r"(?:following ONNX operations|No conversion rule found for operations): ?([\w.:-]+)"
    ),
)


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
        runtime: ``onnxruntime`` or ``openvino``. For a runtime that only boards have, ONNX Runtime
            carries out the ONNX operator by operator, FP16 by rounding: right for accuracy, void
            for time.
        files: Of the engine.
        threads: It may use.
        literal: Without graph optimizations, to see how another kernel would round; OpenVINO has
            but one way.

    Raises:
        InputError: The runtime does not take it, for example for want of an operator.
    """
    path = {each.role: each.path for each in files}["engine"]
    try:
        if runtime == "openvino":
            return OpenVinoEngine(path, threads)
        if path.suffix == ".param":
            return NcnnEngine(path, threads)
        if path.suffix == ".rknn":
            from kedge_builder.measure.simulated import SimulatedRknn

            return SimulatedRknn(path)
        if is_here(runtime):
            return OnnxRuntimeEngine(path, threads, literal=literal)
        from kedge_builder.quantize.half import as_computed

        return OnnxRuntimeEngine(as_computed(path), threads, literal=True)
    except (ImportError, KedgeError):
        raise  # the command says which extra is missing, or what to mend
    # Boundary: each vendor raises its own types, which are not importable from one place.
    except Exception as error:  # noqa: BLE001
        raise _refusal(runtime, path, str(error)) from None


def _refusal(runtime: str, path: Path, said: str) -> InputError:
    """Makes one line of what a vendor said about a file, the missing operator in front."""
    for pattern in _MISSING_OPERATOR:
        found = pattern.search(said)
        if found:
            return InputError(
                f"{runtime} {version(runtime)} lacks the operator {found.group(1)} of {path.name}",
                "choose another runtime or another model",
            )
    return InputError(f"{runtime} does not load {path.name}: {' '.join(said.split())[:200]}")


#: Version of how engines are run here; part of the keys of what was measured of them.
METHOD = 2


def engine_hash(files: Sequence[EngineFile]) -> str:
    """Returns a digest over an engine's files, for keys of what was measured of it."""
    return sha256_hex("".join(sha256_hex(each.path.read_bytes()) for each in files).encode())


def is_here(runtime: str) -> bool:
    """Says whether the builder can load a runtime's engines itself."""
    return runtime in {"onnxruntime", "openvino", "ncnn"}


def is_simulated(runtime: str) -> bool:
    """Says whether engines of a runtime are run by its vendor's simulator."""
    return runtime == "rknn"


def version(runtime: str) -> str:
    """Returns the installed version of a runtime, or what stands in for it."""
    if is_simulated(runtime):
        from kedge_builder.compilers.rknn import VERSION

        return f"simulated by rknn-toolkit2 {VERSION}"
    if not is_here(runtime):
        return f"not on this machine (scored operator by operator, {version('onnxruntime')})"
    if runtime == "openvino":
        import openvino

        return str(openvino.__version__)
    if runtime == "ncnn":
        import ncnn

        return str(ncnn.__version__)
    import onnxruntime

    return str(onnxruntime.__version__)


class OnnxRuntimeEngine:
    """ONNX Runtime on the CPU."""

    def __init__(self, model: Path | bytes, threads: int, *, literal: bool = False) -> None:
        import onnxruntime as ort

        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        if literal:
            options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
        self._session: Any = ort.InferenceSession(
            model if isinstance(model, bytes) else str(model),
            options,
            providers=["CPUExecutionProvider"],
        )
        self._input = self._session.get_inputs()[0].name

    def infer(self, batch: Array) -> Array:
        """Runs one batch."""
        return np.asarray(self._session.run(None, {self._input: batch})[0], dtype=np.float32)


#: OpenVINO's own choice depends on the processor: bfloat16 where it has AMX, of which the builder's
#: may have and the board's not. A class is to answer alike on every board, as its agent does.
FLOAT32 = {"INFERENCE_PRECISION_HINT": "f32"}


class OpenVinoEngine:
    """OpenVINO on the CPU; reads its own IR and ONNX."""

    def __init__(self, path: Path, threads: int) -> None:
        import openvino as ov

        config: dict[str, Any] = {
            "INFERENCE_NUM_THREADS": threads,
            "NUM_STREAMS": 1,
            "PERFORMANCE_HINT": "LATENCY",
            **FLOAT32,
        }
        self._compiled: Any = ov.Core().compile_model(str(path), "CPU", config)
        self._request: Any = self._compiled.create_infer_request()

    def infer(self, batch: Array) -> Array:
        """Runs one batch."""
        self._request.infer([batch])
        return np.array(self._request.get_output_tensor(0).data, dtype=np.float32)


class NcnnEngine:
    """ncnn on the CPU, with the options that the agent gives it."""

    def __init__(self, path: Path, threads: int) -> None:
        import ncnn

        self._net: Any = ncnn.Net()
        self._net.opt.num_threads = threads or 1
        self._net.opt.use_vulkan_compute = False
        self._net.opt.use_fp16_arithmetic = False
        files = str(path), str(path.with_suffix(".bin"))
        if self._net.load_param(files[0]) or self._net.load_model(files[1]):
            raise ValueError("it reads neither layers nor weights")
        self._names = self._net.input_names()[0], self._net.output_names()[0]

    def infer(self, batch: Array) -> Array:
        """Runs one batch."""
        import ncnn

        run = self._net.create_extractor()
        run.input(self._names[0], ncnn.Mat(np.ascontiguousarray(batch[0], dtype=np.float32)))
        _, found = run.extract(self._names[1])
        return np.array(found, dtype=np.float32)[None]
