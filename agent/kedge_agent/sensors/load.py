"""How busy processor, GPU, NPU and memory are."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from kedge_agent.sensors.files import found, number, text

#: File → what its number is a share of. Tegra counts in thousandths, the others in per cent.
_GPU_LOADS = (
    ("sys/devices/gpu.*/load", 1000),
    ("sys/devices/platform/gpu.*/load", 1000),
    ("sys/devices/platform/*.gpu/load", 1000),
    ("sys/devices/platform/bus@0/*.gpu/load", 1000),
    ("sys/class/drm/card*/device/gpu_busy_percent", 100),
)
#: Rockchip, one figure a core: "NPU load:  Core0: 12%, Core1:  0%, Core2:  0%,".
_NPU_LOAD = "sys/kernel/debug/rknpu/load"
_PERCENT = re.compile(r"(\d{1,3})\s*%")
_AVAILABLE = re.compile(r"^MemAvailable:\s+(\d+) kB", re.MULTILINE)


@dataclass(frozen=True)
class CpuTime:
    """Since the start of the board, in the kernel's ticks.

    Attributes:
        busy: Of all cores.
        total: Of all cores.
    """

    busy: int
    total: int


def cpu_time(root: Path) -> CpuTime | None:
    """Reads the first line of /proc/stat (proc_stat(5)): idle and iowait are not busy."""
    words = text(root / "proc/stat").split("\n", 1)[0].split()
    if len(words) < 9 or words[0] != "cpu" or not all(each.isdigit() for each in words[1:9]):
        return None
    ticks = [int(each) for each in words[1:9]]
    return CpuTime(sum(ticks) - ticks[3] - ticks[4], sum(ticks))


def cpu_share(before: CpuTime | None, after: CpuTime | None) -> float | None:
    """Returns the share of all cores' time that was used between two looks, 0..1."""
    if before is None or after is None or after.total <= before.total:
        return None
    return min(1.0, max(0.0, (after.busy - before.busy) / (after.total - before.total)))


def gpu_share(root: Path) -> float | None:
    """Returns how busy the GPU is, 0..1, where sysfs tells: Tegra and amdgpu."""
    for pattern, whole in _GPU_LOADS:
        for path in found(root, pattern):
            load = number(path)
            if load is not None and 0 <= load <= whole:
                return load / whole
    return None


def npu_share(root: Path) -> float | None:
    """Returns how busy the NPU's cores are on average, 0..1, where the kernel tells."""
    loads = [int(each) for each in _PERCENT.findall(text(root / _NPU_LOAD))]
    return min(1.0, sum(loads) / len(loads) / 100) if loads else None


def memory_available_mb(root: Path) -> float | None:
    """Returns what can be taken without swapping, MiB."""
    match = _AVAILABLE.search(text(root / "proc/meminfo"))
    return int(match[1]) / 1024 if match else None
