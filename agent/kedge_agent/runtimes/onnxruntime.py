"""ONNX Runtime on the CPU."""

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

#: Resident memory over file size: weights, their packed copies and activations (measured on
#: YOLOv8 n and s, INT8, 640 px: 8.1 and 5.4).
_MEMORY_FACTOR = 10
_BASE_BYTES = 32 * 2**20


class OnnxRuntime:
    """The port of :mod:`kedge_agent.runtimes.base` over ``onnxruntime``."""

    name = "onnxruntime"
    isolation: Isolation = "in-process"
    on_gpu = False

    def probe(self) -> RuntimeFacts | None:
        """Returns the installed version, or ``None``."""
        try:
            import onnxruntime
        except ImportError:
            return None
        return RuntimeFacts(self.name, str(onnxruntime.__version__))

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

        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 4
        # Between two operators threads spin, which makes a frame a third faster on two threads;
        # between two frames they would take the very cores that a second engine is loaded on.
        options.add_session_config_entry("session.force_spinning_stop", "1")
        try:
            # By its path: reading a copy into Python would hold the loop up for its length.
            session = ort.InferenceSession(
                blobs["engine"].path, options, providers=["CPUExecutionProvider"]
            )
        # Boundary: the vendor raises its own types, which are not importable from one place.
        except Exception as error:  # noqa: BLE001
            raise refusal("ONNX Runtime does not take the engine", error) from None
        return _Session(session)


class _Session:
    def __init__(self, session: Any) -> None:
        self._session: Any = session
        self._input = session.get_inputs()[0].name
        given = session.get_outputs()[0]
        self._output, self._raw = given.name, _room_for(given)
        self._binding = session.io_binding()

    def infer(self, batch: Array) -> Array:
        """Runs one batch."""
        try:
            if self._raw is None:
                found = self._session.run([self._output], {self._input: batch})[0]
                return np.asarray(found, dtype=np.float32)
            # Bound by its address: a copy that was made here must live until the run has ended.
            given = np.ascontiguousarray(batch, dtype=np.float32)
            self._bind(given, self._raw)
            self._session.run_with_iobinding(self._binding)
        # Boundary: as in load.
        except Exception as error:  # noqa: BLE001
            raise refusal("ONNX Runtime failed on a frame", error) from None
        return self._raw

    def _bind(self, batch: Array, raw: Array) -> None:
        bound = self._binding
        bound.bind_input(self._input, "cpu", 0, np.float32, batch.shape, batch.ctypes.data)
        bound.bind_output(self._output, "cpu", 0, np.float32, raw.shape, raw.ctypes.data)

    def close(self) -> None:
        """Frees the session."""
        self._session = self._binding = self._raw = None


def _room_for(output: Any) -> Array | None:
    """Returns memory for an output whose shape stands in the graph; the runtime writes into it."""
    fixed = output.type == "tensor(float)" and all(isinstance(each, int) for each in output.shape)
    return np.empty(output.shape, dtype=np.float32) if fixed and output.shape else None
