"""The runtime port: what every engine runtime offers, TensorRT and RKNN included."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from kedge_agent.admission import Isolation
from kedge_agent.blobs import VerifiedBlob
from kedge_agent.errors import EngineError
from kedge_shared.detections import Array
from kedge_shared.device_classes import RuntimeRange
from kedge_shared.manifest import FileRef, FileRole, InputSpec, OutputSpec


@dataclass(frozen=True)
class RuntimeFacts:
    """What a runtime says of itself on this board.

    Attributes:
        name: As in manifests.
        version: Its own.
    """

    name: str
    version: str


class EngineSpec(Protocol):
    """What a runtime may want to know of an engine: a manifest, or a bench job."""

    @property
    def runtime(self) -> RuntimeRange:
        """What loads it."""
        ...

    @property
    def input(self) -> InputSpec:
        """What it is fed."""
        ...

    @property
    def output(self) -> OutputSpec:
        """How it is read."""
        ...


@runtime_checkable
class Punctual(Protocol):
    """An engine that can give a frame up instead of keeping the loop waiting."""

    def infer_in_time(self, batch: Array) -> Array:
        """Runs like :meth:`Engine.infer`, or says soon that it is late.

        Raises:
            EngineLate: It is not done in about its usual time, or still at an earlier frame.
        """
        ...


class Engine(Protocol):
    """A loaded engine. Not thread-safe: one caller at a time."""

    def infer(self, batch: Array) -> Array:
        """Runs (1, 3, height, width) float32 and returns the raw output tensor.

        What is returned may be the engine's own memory: it holds until the next call.
        """
        ...

    def close(self) -> None:
        """Frees it; the engine is not used afterwards."""
        ...


class Runtime(Protocol):
    """A way to load engines. The vendor's package is imported inside the methods."""

    name: str
    #: Its engines live in a GPU's memory, and reserve address space that no limit foresees.
    on_gpu: bool

    @property
    def isolation(self) -> Isolation:
        """Where its engines live unless a board says otherwise.

        ``own-process`` for one that holds Python's lock while it loads.
        """
        ...

    def probe(self) -> RuntimeFacts | None:
        """Returns what is installed, or ``None`` when the vendor's package is not."""
        ...

    def estimate(self, files: Sequence[FileRef]) -> int:
        """Returns the bytes of memory that loading ``files`` takes, for the admission test."""
        ...

    def load(
        self,
        blobs: Mapping[FileRole, VerifiedBlob],
        spec: EngineSpec,
        *,
        threads: int,
    ) -> Engine:
        """Loads an engine from bytes whose hash was checked in the very memory that is read.

        Raises:
            EngineError: The runtime does not take it.
        """
        ...


@runtime_checkable
class Hosting(Protocol):
    """A runtime whose engines always live in processes that it starts itself."""

    def reserve(self, count: int) -> None:
        """Starts the processes of ``count`` engines ahead, for a caller that soon cannot."""
        ...


@runtime_checkable
class Dispatching(Protocol):
    """A runtime that loads an older release's plans through that release's own library."""

    #: The library; empty: it loads plans of its own release.
    lean: str

    def through(self, library: str) -> Runtime:
        """Returns the runtime that loads plans through a library of the system's."""
        ...


@runtime_checkable
class Weighed(Protocol):
    """An engine that knows what it takes of memory that is not its process's own."""

    @property
    def memory_mb(self) -> float:
        """Memory of the GPU, MiB; 0 is not known."""
        ...


#: How vendors say that an allocation failed, in lower case.
_SHORT = ("bad_alloc", "bad allocation", "failed to allocate", "out of memory", "not enough memory")


def refusal(what: str, error: Exception) -> EngineError | MemoryError:
    """Returns what a runtime raises for a vendor's error: want of memory is no engine's fault.

    Args:
        what: Which runtime did not do what.
        error: The vendor's own.
    """
    said = " ".join(str(error).split())
    line = said[:200]
    # The reason stands at the end of a long line about where it happened.
    if isinstance(error, MemoryError) or any(each in said.lower() for each in _SHORT):
        return MemoryError(f"{what}: out of memory")
    return EngineError(f"{what}: {line}")
