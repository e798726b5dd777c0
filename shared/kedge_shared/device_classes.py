"""Device classes: what a kind of board is and may take. Data in YAML, read here."""

from __future__ import annotations

from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Literal

from kedge_shared import wire
from kedge_shared.errors import InputError
from kedge_shared.ids import Millis, Name, Share

#: How an engine's numbers are written: four kinds of INT8, and two float ones.
QuantizationForm = Literal[
    "qdq-u8s8", "qdq-s8s8", "nncf-mixed", "float16", "rknn-int8", "ncnn-float"
]
_CLASS_LIMIT_BYTES = 64 * 1024


@dataclass(frozen=True, kw_only=True)
class RuntimeRange:
    """A runtime and the versions of it that may load an engine.

    Attributes:
        name: ``onnxruntime``, ``openvino``, …
        range: Comma-separated PEP 440 style bounds, for example ``">=1.20,<2"``.
    """

    name: Name
    range: str


@dataclass(frozen=True, kw_only=True)
class Budgets:
    """What a build may cost on a board of the class. ``None`` is: not judged.

    Attributes:
        latency_p95_ms: Milliseconds for one frame, pre- and post-processing included.
        latency_ratio: Median frame time of the candidate over that of the active engine on the
            same board, at most.
        memory_mb: Resident memory the engine may add, MiB.
        artifact_mb: Size of the engine's files, MiB.
        accuracy_drop: Loss of mAP50-95 against float, as a fraction (0.01 = one point).
    """

    latency_p95_ms: Millis | None = None
    latency_ratio: Millis | None = None
    memory_mb: Millis | None = None
    artifact_mb: Millis | None = None
    accuracy_drop: Share | None = None


@dataclass(frozen=True, kw_only=True)
class DeviceClass:
    """A kind of board.

    Attributes:
        name: Word used everywhere for the class.
        title: For people.
        runtime: What loads the engine.
        arch: ``platform.machine()`` values.
        cpu_flags: Flags of /proc/cpuinfo that every board of the class has.
        form: How numbers are written for this runtime.
        opset: Newest ONNX opset that the board's compiler reads; ``None`` is: the builder's own.
        reduce_range: 7-bit weights: AVX2 kernels without VNNI saturate with 8
            (docs/architecture.md, "Quantization").
        input_size: Pixels, square.
        threads: Threads an engine may use.
        budgets: Limits of a build.
        soc: Systems on chip; empty is: any computer.
        modules: NVIDIA's part numbers, by their beginning; empty is: any.
        sm: CUDA compute capability times ten that every board of the class has.
        plan_sm: Those that plans are compiled for beforehand.
        version_compatible: Such plans are for newer releases of TensorRT too, by a lean runtime.
        l4t: Range of Jetson Linux.
        drivers: Kernel driver → range.
        gpu: Maker of the GPU that the class computes on; empty is: none, or the SoC's.
        sources: Field, dotted, → where its number comes from.
    """

    name: Name
    title: str
    runtime: RuntimeRange
    arch: tuple[str, ...]
    form: QuantizationForm
    budgets: Budgets
    cpu_flags: tuple[str, ...] = ()
    reduce_range: bool = False
    opset: int | None = None
    input_size: int = 640
    threads: int = 1
    notes: str = field(default="")
    soc: tuple[str, ...] = ()
    modules: tuple[str, ...] = ()
    sm: int | None = None
    plan_sm: tuple[int, ...] = ()
    version_compatible: bool = False
    l4t: str = ""
    drivers: dict[str, str] = field(default_factory=dict)
    gpu: str = ""
    sources: dict[str, str] = field(default_factory=dict)


def catalogue() -> dict[str, DeviceClass]:
    """Returns the classes that Kedge ships, by name."""
    folder = resources.files("kedge_shared") / "catalogue"
    classes = (
        wire.decode_yaml(entry.read_bytes(), DeviceClass, f"device class {entry.name}")
        for entry in folder.iterdir()
        if entry.name.endswith(".yaml")
    )
    return {each.name: each for each in sorted(classes, key=lambda each: each.name)}


def find_class(name_or_file: str) -> DeviceClass:
    """Returns a class by its name in the catalogue or from a YAML file of one's own.

    Raises:
        InputError: Neither a known name nor a readable file.
    """
    known = catalogue()
    if name_or_file in known:
        return known[name_or_file]
    path = Path(name_or_file)
    if path.suffix in {".yaml", ".yml"}:
        data = wire.read_limited(path, "device class", _CLASS_LIMIT_BYTES)
        return wire.decode_yaml(data, DeviceClass, f"device class {path}")
    raise InputError(
        f"device class {name_or_file!r} is not known",
        f"use one of {', '.join(known)}, or a YAML file",
    )
