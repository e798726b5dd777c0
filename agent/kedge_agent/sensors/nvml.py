"""A discrete NVIDIA GPU, if NVIDIA's own Python binding is there (``nvidia-ml-py``)."""

from __future__ import annotations

from dataclasses import dataclass


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
    try:
        import pynvml
    except ImportError:
        return None
    try:
        pynvml.nvmlInit()
        try:
            gpu = pynvml.nvmlDeviceGetHandleByIndex(0)
            major, minor = pynvml.nvmlDeviceGetCudaComputeCapability(gpu)
            memory = pynvml.nvmlDeviceGetMemoryInfo(gpu).total
            return Gpu(10 * major + minor, round(memory / 2**20, 1))
        finally:
            pynvml.nvmlShutdown()
    except pynvml.NVMLError:
        return None


def free_memory_mb() -> float | None:
    """Returns what is free of the first GPU's own memory, MiB, or ``None`` as for :func:`device`.

    Chips that share the board's memory have none of their own, and tell none.
    """
    try:
        import pynvml
    except ImportError:
        return None
    try:
        pynvml.nvmlInit()
        try:
            gpu = pynvml.nvmlDeviceGetHandleByIndex(0)
            return float(pynvml.nvmlDeviceGetMemoryInfo(gpu).free) / 2**20
        finally:
            pynvml.nvmlShutdown()
    except pynvml.NVMLError:
        return None


def look() -> GpuReading | None:
    """Returns what NVML says; ``None`` without the binding, the driver or a GPU."""
    try:
        import pynvml
    except ImportError:
        return None
    reasons = {
        pynvml.nvmlClocksThrottleReasonSwThermalSlowdown: "GPU: thermal slowdown (software)",
        pynvml.nvmlClocksThrottleReasonHwThermalSlowdown: "GPU: thermal slowdown (hardware)",
        pynvml.nvmlClocksThrottleReasonHwPowerBrakeSlowdown: "GPU: power brake",
        pynvml.nvmlClocksThrottleReasonSwPowerCap: "GPU: power cap",
    }
    try:
        pynvml.nvmlInit()
        try:
            gpu = pynvml.nvmlDeviceGetHandleByIndex(0)
            bits = pynvml.nvmlDeviceGetCurrentClocksThrottleReasons(gpu)
            return GpuReading(
                pynvml.nvmlDeviceGetUtilizationRates(gpu).gpu / 100,
                float(pynvml.nvmlDeviceGetTemperature(gpu, pynvml.NVML_TEMPERATURE_GPU)),
                tuple(word for bit, word in reasons.items() if bits & bit),
            )
        finally:
            pynvml.nvmlShutdown()
    except pynvml.NVMLError:
        return None
