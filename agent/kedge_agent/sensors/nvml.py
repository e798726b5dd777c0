"""A discrete NVIDIA GPU, if NVIDIA's own Python binding is there (``nvidia-ml-py``).

Of several it is the one that engines run on: the first of ``CUDA_VISIBLE_DEVICES``, which counts by
the bus in all processes of the agent (:mod:`kedge_agent.children`), else the first.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

T = TypeVar("T")


@dataclass(frozen=True)
class GpuReading:
    """One look at the first GPU.

    Attributes:
        share: Of its time that it was busy, 0..1.
        temperature_c: Degrees Celsius.
        throttled: What holds it back, in words.
    """

    share: float
    temperature_c: float
    throttled: tuple[str, ...]


@dataclass(frozen=True)
class Gpu:
    """What the first GPU is.

    Attributes:
        sm: CUDA compute capability times ten.
        memory_mb: Its own memory, MiB.
    """

    sm: int
    memory_mb: float


def device() -> Gpu | None:
    """Returns what the first GPU is; ``None`` without the binding, the driver or a GPU."""

    def read(nvml: Any, gpu: Any) -> Gpu:
        major, minor = nvml.nvmlDeviceGetCudaComputeCapability(gpu)
        memory = nvml.nvmlDeviceGetMemoryInfo(gpu).total
        return Gpu(10 * major + minor, round(memory / 2**20, 1))

    return _asked(read)


def free_memory_mb() -> float | None:
    """Returns what is free of the first GPU's own memory, MiB, or ``None`` as for :func:`device`.

    Chips that share the board's memory have none of their own, and tell none.
    """
    return _asked(lambda nvml, gpu: float(nvml.nvmlDeviceGetMemoryInfo(gpu).free) / 2**20)


def look() -> GpuReading | None:
    """Returns what NVML says; ``None`` without the binding, the driver or a GPU."""

    def read(nvml: Any, gpu: Any) -> GpuReading:
        reasons = {
            nvml.nvmlClocksThrottleReasonSwThermalSlowdown: "GPU: thermal slowdown (software)",
            nvml.nvmlClocksThrottleReasonHwThermalSlowdown: "GPU: thermal slowdown (hardware)",
            nvml.nvmlClocksThrottleReasonHwPowerBrakeSlowdown: "GPU: power brake",
            nvml.nvmlClocksThrottleReasonSwPowerCap: "GPU: power cap",
        }
        bits = nvml.nvmlDeviceGetCurrentClocksThrottleReasons(gpu)
        return GpuReading(
            nvml.nvmlDeviceGetUtilizationRates(gpu).gpu / 100,
            float(nvml.nvmlDeviceGetTemperature(gpu, nvml.NVML_TEMPERATURE_GPU)),
            tuple(word for bit, word in reasons.items() if bits & bit),
        )

    return _asked(read)


def _asked(read: Callable[[Any, Any], T]) -> T | None:
    """Returns what is read of the first GPU."""
    try:
        import pynvml
    except ImportError:
        return None
    try:
        pynvml.nvmlInit()
        try:
            return read(pynvml, _first(pynvml))
        finally:
            pynvml.nvmlShutdown()
    except (pynvml.NVMLError, ValueError):
        return None


def _first(nvml: Any) -> Any:
    """Returns the GPU that CUDA takes first.

    Raises:
        ValueError: The environment hides all of them, or names none.
    """
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is None:
        return nvml.nvmlDeviceGetHandleByIndex(0)
    first = named.split(",")[0].strip()
    if first.startswith(("GPU-", "MIG-")):
        return nvml.nvmlDeviceGetHandleByUUID(first)
    return nvml.nvmlDeviceGetHandleByIndex(int(first))
