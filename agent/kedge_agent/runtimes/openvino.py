"""OpenVINO on the CPU."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from kedge_agent.admission import Isolation
from kedge_agent.blobs import VerifiedBlob
from kedge_agent.runtimes.base import (
    Engine,
    EngineSpec,
    RuntimeFacts,
    refusal,
)
from kedge_shared.detections import Array
from kedge_shared.manifest import FileRef, FileRole

#: As for ONNX Runtime; compilation keeps a second copy of the weights for a while.
_MEMORY_FACTOR = 12
_BASE_BYTES = 64 * 2**20


class OpenVino:
    """The port of :mod:`kedge_agent.runtimes.base` over ``openvino``."""

    name = "openvino"
    isolation: Isolation = "in-process"
    on_gpu = False

    def probe(self) -> RuntimeFacts | None:
        """Returns the installed version, or ``None``."""
        try:
            import openvino
        except ImportError:
            return None
        return RuntimeFacts(self.name, str(openvino.__version__))

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
        """Compiles its own form (two files) or ONNX (one) from verified bytes."""
        import openvino as ov

        config: dict[str, Any] = {
            "INFERENCE_NUM_THREADS": threads,
            "NUM_STREAMS": 1,
            "PERFORMANCE_HINT": "LATENCY",
            "ENABLE_CPU_PINNING": False,
            # As the builder measured it: by itself it takes bfloat16 where the processor has AMX.
            "INFERENCE_PRECISION_HINT": "f32",
        }
        try:
            core = ov.Core()
            given = bytes(blobs["engine"].view)
            if "engine-weights" in blobs:
                weights = ov.Tensor(np.frombuffer(blobs["engine-weights"].view, dtype=np.uint8))
                model = core.read_model(given, weights)
            else:
                model = core.read_model(given)
            compiled = core.compile_model(model, "CPU", config)
            return _Compiled(compiled)
        # Boundary: the vendor raises plain RuntimeErrors and its own types.
        except Exception as error:  # noqa: BLE001
            raise refusal("OpenVINO does not take the engine", error) from None


class _Compiled:
    def __init__(self, compiled: Any) -> None:
        self._request: Any = compiled.create_infer_request()

    def infer(self, batch: Array) -> Array:
        """Runs one batch."""
        try:
            self._request.infer([batch])
            return np.array(self._request.get_output_tensor(0).data, dtype=np.float32)
        # Boundary: as in load.
        except Exception as error:  # noqa: BLE001
            raise refusal("OpenVINO failed on a frame", error) from None

    def close(self) -> None:
        """Frees the compiled model."""
        self._request = None
