"""Rockchip's NPU, through rknn-toolkit-lite2 and the board's librknnrt.

An RKNN model is checked against the board before any of Rockchip's code sees it: librknnrt loads
models of older toolkits too, with other kernels than the builder simulated. Written against the
source of rknn-toolkit-lite2 2.5.0 and tried with a fake of it; no board has run it
(docs/hardware.md).
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from kedge_agent import hardware
from kedge_agent.admission import Isolation
from kedge_agent.blobs import VerifiedBlob
from kedge_agent.errors import EngineError
from kedge_agent.hardware import Hardware
from kedge_agent.runtimes.base import (
    Engine,
    EngineSpec,
    RuntimeFacts,
    refusal,
)
from kedge_shared import heads
from kedge_shared.detections import Array
from kedge_shared.errors import InputError
from kedge_shared.manifest import FileRef, FileRole, InputSpec, OutputSpec
from kedge_shared.rknnfile import check_rknn

#: Weights and a feature map or two; the toolkit's own estimate for YOLOv8n at 640 px is 14 MiB.
_MEMORY_FACTOR = 6
_BASE_BYTES = 32 * 2**20
_MODULE = "rknnlite"


class Rknn:
    """The port of :mod:`kedge_agent.runtimes.base` over ``rknnlite``.

    Args:
        look: Tells the board's SoC and libraries.
        vendor: Returns ``rknnlite.api``'s ``RKNNLite``.
    """

    name = "rknn"
    #: Whether RKNNLite gives Python's lock back while it loads is nowhere said.
    isolation: Isolation = "own-process"
    on_gpu = False

    def __init__(
        self,
        look: Callable[[], Hardware] = lambda: hardware.look(Path("/")),
        vendor: Callable[[], Any] = lambda: importlib.import_module("rknnlite.api").RKNNLite,
    ) -> None:
        self._look, self._vendor = look, vendor

    def probe(self) -> RuntimeFacts | None:
        """Returns librknnrt's version, or ``None`` without it or without rknn-toolkit-lite2."""
        if importlib.util.find_spec(_MODULE) is None:
            return None
        version = self._look().libraries.get(self.name)
        return RuntimeFacts(self.name, version) if version else None

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
        """Loads a model that this board's SoC and librknnrt are for."""
        board, blob = self._look(), blobs["engine"]
        version = board.libraries.get(self.name)
        if version is None:
            raise EngineError("the board has no librknnrt.so")
        try:
            check_rknn(blob.view, version=version, soc=board.soc)
        except InputError as error:
            raise EngineError(str(error)) from None
        try:
            return _Loaded(_opened(self._vendor(), blob.path), spec.input, spec.output)
        except EngineError:
            raise
        # Boundary: the vendor raises plain exceptions.
        except Exception as error:  # noqa: BLE001
            raise refusal("RKNN does not take the engine", error) from None


def _opened(vendor: Any, path: str) -> Any:
    """Returns a loaded RKNNLite; it tells failure by a code, and its reason in its log."""
    lite = vendor(verbose=False)
    code = lite.load_rknn(path)
    # The driver picks one core of the three: a second engine finds another.
    code = code or lite.init_runtime(core_mask=vendor.NPU_CORE_AUTO)
    if code:
        lite.release()
        raise EngineError(f"RKNN does not take the engine (code {code}); its log says why")
    return lite


class _Loaded:
    def __init__(self, lite: Any, given: InputSpec, read: OutputSpec) -> None:
        self._lite, self._given, self._read = lite, given, read

    def infer(self, batch: Array) -> Array:
        """Runs one batch; what the NPU leaves out is decoded here."""
        image = heads.to_bytes(batch, self._given).transpose(0, 2, 3, 1)
        try:
            found = self._lite.inference(inputs=[image], data_format=["nhwc"])
        # Boundary: as in load.
        except Exception as error:  # noqa: BLE001
            raise refusal("RKNN failed on a frame", error) from None
        if found is None:
            raise EngineError("RKNN failed on a frame; its log says why")
        try:
            return heads.join(found, self._given, self._read)
        except ValueError as error:
            raise EngineError(f"RKNN: {error}") from None

    def close(self) -> None:
        """Frees the NPU's memory."""
        lite, self._lite = self._lite, None
        if lite is not None:
            lite.release()
