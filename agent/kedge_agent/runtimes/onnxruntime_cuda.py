"""ONNX Runtime on an NVIDIA GPU: for boards with a GPU and no TensorRT, and as a fallback.

An operator that the GPU lacks runs on the processor, which only shows in the frame time; so a graph
of which no part comes onto the GPU at all is refused.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from kedge_agent.admission import Isolation
from kedge_agent.blobs import VerifiedBlob
from kedge_agent.errors import EngineError, EngineGone
from kedge_agent.gpu.engine_host import Cuda, EngineFault
from kedge_agent.runtimes.base import Engine, EngineSpec, RuntimeFacts, refusal
from kedge_agent.runtimes.tensorrt import devices, open_cuda
from kedge_shared.detections import Array
from kedge_shared.manifest import FileRef, FileRole

_PROVIDER = "CUDAExecutionProvider"
#: The context is lost with these (CUDA Runtime API, cudaError): no later frame can be answered.
_LOST = re.compile(r"(?i)illegal memory|unspecified launch failure|CUDA (failure|error) 7\d\d")
#: cuDNN, cuBLAS and the arena, where nobody measured them, and weights with their copies.
_BASE_BYTES, _MEMORY_FACTOR = 512 * 2**20, 6


class OnnxRuntimeCuda:
    """The port of :mod:`kedge_agent.runtimes.base` over ``onnxruntime-gpu``.

    Args:
        cuda: Opens CUDA, to see whether there is a GPU.
    """

    name = "onnxruntime-cuda"
    isolation: Isolation = "in-process"
    on_gpu = True

    def __init__(self, cuda: Callable[[], Cuda] = open_cuda) -> None:
        self._open_cuda = cuda

    def probe(self) -> RuntimeFacts | None:
        """Returns the installed version; ``None`` where it has no CUDA, or the board no GPU."""
        try:
            import onnxruntime

            if _PROVIDER in onnxruntime.get_available_providers() and devices(self._open_cuda()):
                return RuntimeFacts(self.name, str(onnxruntime.__version__))
        except (ImportError, EngineFault):
            pass
        return None

    def estimate(self, files: Sequence[FileRef]) -> int:
        """Returns bytes that loading takes."""
        return _BASE_BYTES + _MEMORY_FACTOR * sum(each.length for each in files)

    def load(
        self,
        blobs: Mapping[FileRole, VerifiedBlob],
        spec: EngineSpec,
        *,
        threads: int,
    ) -> Engine:
        """Loads a session from verified bytes."""
        import onnxruntime as ort

        if _PROVIDER not in ort.get_available_providers():
            raise EngineError("this ONNX Runtime has no CUDA; pip install onnxruntime-gpu")
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 4
        # Memory is taken as it is needed, not by doubling: the next engine must fit beside it.
        on_gpu = {"device_id": 0, "arena_extend_strategy": "kSameAsRequested",
                  "cudnn_conv_algo_search": "HEURISTIC"}  # fmt: skip
        try:
            session = ort.InferenceSession(
                blobs["engine"].path, options,
                providers=[(_PROVIDER, on_gpu), "CPUExecutionProvider"],
            )  # fmt: skip
        # Boundary: the vendor raises its own types, which are not importable from one place.
        except Exception as error:  # noqa: BLE001
            raise refusal("ONNX Runtime does not take the engine", error) from None
        if _PROVIDER not in session.get_providers():
            # It goes on without the GPU when its libraries do not load.
            raise EngineError(
                "ONNX Runtime does not get onto the GPU: look at cuDNN and the driver"
            )
        # What fails on the GPU would be run again on the processor, and the GPU never again.
        session.disable_fallback()
        return _Session(session)


class _Session:
    """A session; what it gives is its own until the next call."""

    def __init__(self, session: Any) -> None:
        self._session: Any = session
        self._input, self._output = session.get_inputs()[0].name, session.get_outputs()[0].name

    def infer(self, batch: Array) -> Array:
        """Runs one batch."""
        given = np.ascontiguousarray(batch, dtype=np.float32)
        try:
            found = self._session.run([self._output], {self._input: given})[0]
        # Boundary: as in load.
        except Exception as error:  # noqa: BLE001
            failed = refusal("ONNX Runtime failed on a frame", error)
            raise (EngineGone(str(failed)) if _LOST.search(str(error)) else failed) from None
        return np.asarray(found, dtype=np.float32)

    def close(self) -> None:
        """Frees the session."""
        self._session = None
