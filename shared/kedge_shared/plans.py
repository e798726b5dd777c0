"""Plans: engines compiled beforehand, and what each of them was made for. Data alone.

TensorRT's plans fit the release, the SM and the CUDA major they were made with, unless they were
made version-compatible; TensorRT for RTX's fit one release, and every SM they were made for; an
RKNN model fits the release of the toolkit that converted it. NVIDIA: "Engine Compatibility" of the
TensorRT 11.1 and the TensorRT-RTX documentation.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from msgspec import Meta

from kedge_shared.ids import Millis, Name, Sha256

#: What runs nothing but plans, or builds them first.
PLANNED = frozenset({"tensorrt", "tensorrt-rtx", "rknn"})

Version = Annotated[str, Meta(min_length=1, max_length=64)]


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A compiled engine, and what it was compiled with.

    Attributes:
        file: SHA-256 of the plan, one of the manifest's files.
        runtime: ``tensorrt``, ``tensorrt-rtx`` or ``rknn``.
        version: Of the compiler, as it says itself.
        onnx: SHA-256 of the ONNX it was made of.
        sm: CUDA compute capabilities times ten that it runs on; empty for an NPU.
        soc: SoCs that it runs on; empty is: ``sm`` decides.
        cuda: Major of the CUDA it was compiled with, or ``None`` for an NPU.
        flags: Options of the compiler that change the result.
        timing_cache: SHA-256 of the timings that it was made with, or ``None``.
        version_compatible: Made to be loaded by newer releases too.
        host_code: It carries TensorRT's own runtime as native code, which no board runs.
        memory_mb: Device memory that it takes, MiB.
    """

    file: Sha256
    runtime: Name
    version: Version
    onnx: Sha256
    sm: tuple[int, ...] = ()
    soc: tuple[str, ...] = ()
    cuda: int | None = None
    flags: tuple[str, ...] = ()
    timing_cache: Sha256 | None = None
    version_compatible: bool = False
    host_code: bool = False
    memory_mb: Millis | None = None


@dataclass(frozen=True, kw_only=True)
class TimingCache:
    """Timings that make a build on the board shorter and alike on all boards of a class.

    Attributes:
        file: SHA-256, one of the manifest's files.
        version: TensorRT's.
        sm: Of the GPU it was taken on.
        cuda: Major.
    """

    file: Sha256
    version: Version
    sm: int
    cuda: int


@dataclass(frozen=True, kw_only=True)
class OnDevice:
    """What building on the board takes.

    Attributes:
        allowed: It may be built there at all.
        int8: The ONNX is quantized: the GPU must have INT8 arithmetic.
        half: What the ONNX does not quantize may be computed in FP16, save the decode.
        memory_mb: Total memory a board must have to build, MiB.
    """

    allowed: bool = True
    int8: bool = True
    half: bool = True
    memory_mb: Millis | None = None
