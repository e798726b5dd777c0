"""What the figures were measured on."""

from __future__ import annotations

import os
import platform
import resource
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

_TOOLS = (
    "kedge",
    "torch",
    "ultralytics-opencv-headless",
    "onnx",
    "onnxruntime",
    "openvino",
    "nncf",
)


def describe() -> str:
    """Returns processor, cores and whether it has VNNI."""
    name, flags = platform.machine(), ""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                name = line.partition(":")[2].strip()
            if line.startswith("flags"):
                flags = line
                break
    except OSError:
        return name
    vnni = "with VNNI" if "vnni" in flags else "without VNNI"
    return f"{name}, {os.cpu_count()} cores, {vnni}"


def tools() -> dict[str, str]:
    """Returns the versions of everything that shaped the build."""
    found = {"python": platform.python_version()}
    for name in _TOOLS:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def peak_memory_mb() -> float:
    """Returns this process's peak resident memory, MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
