"""ncnn on the CPU: what small Arm boards are often quickest with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from kedge_agent.admission import Isolation
from kedge_agent.blobs import VerifiedBlob
from kedge_agent.errors import EngineError
from kedge_agent.runtimes.base import (
    Engine,
    EngineSpec,
    RuntimeFacts,
    refusal,
)
from kedge_shared.detections import Array
from kedge_shared.manifest import FileRef, FileRole

#: Weights twice while they are repacked, and the activations.
_MEMORY_FACTOR = 6
_BASE_BYTES = 32 * 2**20


class Ncnn:
    """The port of :mod:`kedge_agent.runtimes.base` over ``ncnn``."""

    name = "ncnn"
    isolation: Isolation = "in-process"
    on_gpu = False

    def probe(self) -> RuntimeFacts | None:
        """Returns the installed version, or ``None``."""
        try:
            import ncnn
        except ImportError:
            return None
        return RuntimeFacts(self.name, str(ncnn.__version__))

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
        """Loads a network from its two verified files."""
        import ncnn

        if "engine-weights" not in blobs:
            raise EngineError("ncnn wants two files, .param and .bin")
        net = ncnn.Net()
        net.opt.num_threads = threads
        net.opt.use_vulkan_compute = False
        # Boxes are decoded inside of the graph: at 640 px FP16 has steps of half a pixel there.
        net.opt.use_fp16_arithmetic = False
        try:
            code = net.load_param(blobs["engine"].path)
            code = code or net.load_model(blobs["engine-weights"].path)
        # Boundary: the vendor's bindings raise plain exceptions.
        except Exception as error:  # noqa: BLE001
            raise refusal("ncnn does not take the engine", error) from None
        names = net.input_names(), net.output_names()
        if code or not all(names):
            raise EngineError(f"ncnn does not take the engine (code {code})")
        return _Network(net, names[0][0], names[1][0])


class _Network:
    def __init__(self, net: Any, given: str, read: str) -> None:
        self._net, self._given, self._read = net, given, read

    def infer(self, batch: Array) -> Array:
        """Runs one batch."""
        import ncnn

        try:
            run = self._net.create_extractor()
            # A Mat is a view: a copy that was made here must live until the run has ended.
            given = np.ascontiguousarray(batch[0], dtype=np.float32)
            run.input(self._given, ncnn.Mat(given))
            code, found = run.extract(self._read)
            raw = np.array(found, dtype=np.float32)
        # Boundary: as in load.
        except Exception as error:  # noqa: BLE001
            raise refusal("ncnn failed on a frame", error) from None
        if code:
            raise EngineError(f"ncnn failed on a frame (code {code})")
        return raw[None]

    def close(self) -> None:
        """Frees the network."""
        self._net = None
