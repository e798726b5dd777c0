"""What the figures were measured on."""

from __future__ import annotations

import platform
import resource
from importlib.metadata import PackageNotFoundError, version

from kedge_shared.machine import describe

__all__ = ["describe", "peak_memory_mb", "tools"]

_TOOLS = (
    "kedge",
    "torch",
    "ultralytics-opencv-headless",
    "onnx",
    "onnxruntime",
    "openvino",
    "nncf",
)


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
