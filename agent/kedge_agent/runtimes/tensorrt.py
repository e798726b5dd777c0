"""TensorRT and TensorRT for RTX: in this process, or on the Python that the board brings for it.

JetPack 4 and 5 bring bindings for their system's Python alone: there an engine lives in a process
of that Python (kedge_agent/gpu/engine_host.py), and so does the builder of plans.
"""

from __future__ import annotations

import ctypes
import importlib
import sys
from collections.abc import Callable, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from kedge_agent.admission import Isolation
from kedge_agent.blobs import VerifiedBlob
from kedge_agent.errors import EngineError, EngineGone
from kedge_agent.gpu import board_python
from kedge_agent.gpu.engine_host import ContextLost, Cuda, EngineFault, OutOfMemory, Session, Tensor
from kedge_agent.hosting.host import HostedEngine
from kedge_agent.hosting.process import Host
from kedge_agent.runtimes.base import Engine, EngineSpec, Runtime, RuntimeFacts
from kedge_shared.detections import Array
from kedge_shared.errors import InputError
from kedge_shared.manifest import FileRef, FileRole
from kedge_shared.planfile import begins_at, check_bytes
from kedge_shared.versions import major

#: Weights on the GPU and the copy that is read, over the plan's length.
_MEMORY_FACTOR = 2
#: Activations and buffers, where nobody measured them.
_BASE_BYTES = 128 * 2**20
_CHANNELS = 3
#: Before it, loading holds Python's lock (TensorRT issues 2402 and 2945).
_LETS_GO = 10


class TensorRt:
    """The port of :mod:`kedge_agent.runtimes.base` over bindings that import here.

    Args:
        name: ``tensorrt`` or ``tensorrt-rtx``.
        module: Of the bindings.
        cuda: Opens CUDA.
        lean: Library of the older release whose plans it loads.
    """

    on_gpu = True

    def __init__(
        self, name: str, module: str, cuda: Callable[[], Cuda] | None = None, lean: str = ""
    ) -> None:
        self.name, self._module, self._open_cuda = name, module, cuda or open_cuda
        self.lean = lean

    def through(self, library: str) -> Runtime:
        """Returns the same for plans of the release of a lean runtime."""
        return TensorRt(self.name, self._module, self._open_cuda, library)

    @property
    def isolation(self) -> Isolation:
        """A process of its own before TensorRT 10; TensorRT for RTX came after it, as 1.0."""
        if self._module != "tensorrt":
            return "in-process"
        try:
            version = metadata.version(self._module)
        except metadata.PackageNotFoundError:
            return "in-process"
        return "in-process" if (major(version) or _LETS_GO) >= _LETS_GO else "own-process"

    def probe(self) -> RuntimeFacts | None:
        """Returns the installed version; ``None`` without bindings or a GPU.

        The GPU is asked first: importing the bindings takes a second, and they import anywhere.
        """
        try:
            if not devices(self._open_cuda()):
                return None
            module = importlib.import_module(self._module)
        except (EngineFault, ImportError, OSError):
            return None
        return RuntimeFacts(self.name, str(module.__version__))

    def estimate(self, files: Sequence[FileRef]) -> int:
        """Returns bytes that loading takes."""
        return estimate(files)

    def load(
        self,
        blobs: Mapping[FileRole, VerifiedBlob],
        spec: EngineSpec,
        *,
        threads: int,
    ) -> Engine:
        """Loads a plan from verified bytes; the processor's threads play no part."""
        checked = _checked(blobs)
        shape = (1, _CHANNELS, spec.input.height, spec.input.width)
        try:
            trt = importlib.import_module(self._module)
            with memoryview(blobs["engine"].view)[checked:] as plan:
                return _Loaded(Session(trt, self._open_cuda(), plan, shape, self.lean))
        except EngineFault as error:
            raise translated(error) from None


class HostedTensorRt:
    """The same over bindings that another Python of this board brings.

    Args:
        python: It.
        host: Starts the processes of engines.
        lean: Library of the older release whose plans it loads.
    """

    name = "tensorrt"
    isolation: Isolation = "own-process"
    on_gpu = True

    def __init__(self, python: Path, host: Host | None = None, lean: str = "") -> None:
        self._python, self._host = python, host or board_python.host(python)
        self.lean = lean

    def through(self, library: str) -> Runtime:
        """Returns the same for plans of the release of a lean runtime."""
        return HostedTensorRt(self._python, self._host, library)

    def probe(self) -> RuntimeFacts | None:
        """Returns the version that the other Python tells, or ``None``."""
        found = board_python.version(self._python)
        return RuntimeFacts(self.name, found) if found else None

    def reserve(self, count: int) -> None:
        """Starts the processes of ``count`` engines ahead."""
        self._host.reserve(count)

    def estimate(self, files: Sequence[FileRef]) -> int:
        """Returns bytes that loading takes."""
        return estimate(files)

    def load(
        self,
        blobs: Mapping[FileRole, VerifiedBlob],
        spec: EngineSpec,
        *,
        threads: int,
    ) -> Engine:
        """Loads a plan in a process of the other Python."""
        skip = _checked(blobs)
        return HostedEngine(
            self.name, blobs, spec, threads=threads, skip=skip, lean=self.lean, host=self._host,
        )  # fmt: skip


def classic(root: Path = Path("/")) -> Runtime:
    """Returns classic TensorRT's runtime as this board has it.

    Args:
        root: Of the file system.
    """
    python = board_python.find(root)
    return TensorRt("tensorrt", "tensorrt") if python is None else HostedTensorRt(python)


def open_cuda() -> Cuda:
    """Returns CUDA: the system's, or one that came as a wheel.

    Raises:
        EngineFault: There is none.
    """
    try:
        return Cuda()
    except EngineFault:
        for path in sys.path:
            for each in sorted(Path(path).glob("nvidia/*/lib/libcudart.so.*"), reverse=True):
                return Cuda(ctypes.CDLL(str(each)))
        raise


def devices(cuda: Cuda) -> int:
    """Returns how many GPUs there are.

    Raises:
        EngineFault: The driver does not answer.
    """
    found = ctypes.c_int()
    cuda.do("cudaGetDeviceCount", ctypes.byref(found))
    return found.value


def memory_of(cuda: Cuda) -> tuple[int, int]:
    """Returns the GPU's memory that is free and all of it, bytes."""
    free, total = ctypes.c_size_t(), ctypes.c_size_t()
    cuda.do("cudaMemGetInfo", ctypes.byref(free), ctypes.byref(total))
    return free.value, total.value


def estimate(files: Sequence[FileRef]) -> int:
    """Returns the bytes that an engine of unknown appetite takes."""
    return _BASE_BYTES + _MEMORY_FACTOR * sum(each.length for each in files)


def translated(error: EngineFault) -> EngineError | MemoryError:
    """Returns the agent's error for one of the engine host's."""
    if isinstance(error, OutOfMemory):
        return MemoryError(str(error))
    return EngineGone(str(error)) if isinstance(error, ContextLost) else EngineError(str(error))


def _checked(blobs: Mapping[FileRole, VerifiedBlob]) -> int:
    """Looks at a plan before any of TensorRT's code does; returns where it begins."""
    try:
        check_bytes(blobs["engine"].view)
    except InputError as error:
        raise EngineError(error.what) from None
    return begins_at(blobs["engine"].view)


class _Loaded:
    """A session with arrays instead of addresses."""

    def __init__(self, session: Session) -> None:
        self._session: Session | None = session
        self.memory_mb = session.memory_bytes / 2**20
        self._found: tuple[Tensor, Any] | None = None

    def infer(self, batch: Array) -> Array:
        """Runs one batch; the answer holds until the next call."""
        if self._session is None:
            raise EngineError("the engine is closed")
        given = np.ascontiguousarray(batch, dtype=np.float32)
        try:
            tensor = self._session.infer(given.ctypes.data, given.nbytes)
        except EngineFault as error:
            raise translated(error) from None
        if self._found is None or self._found[0] is not tensor:
            room = (ctypes.c_float * (tensor.size // 4)).from_address(tensor.host)
            self._found = tensor, np.ctypeslib.as_array(room).reshape(tensor.shape)
        found: Array = self._found[1]
        return found

    def close(self) -> None:
        """Frees it."""
        session, self._session, self._found = self._session, None, None
        if session is not None:
            session.close()
