"""What the figures were measured on."""

from __future__ import annotations

import platform
import resource
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version

from kedge_shared.machine import describe

__all__ = ["describe", "is_of", "peak_memory_mb", "tools"]

_TOOLS = (
    "kedge",
    "torch",
    "ultralytics-opencv-headless",
    "onnx",
    "onnxruntime",
    "openvino",
    "nncf",
    "tensorrt_rtx",
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


def is_of(arch: Sequence[str]) -> bool:
    """Says whether this machine's times say anything of boards of ``arch``; empty is: any."""
    return not arch or platform.machine() in arch


def peak_memory_mb() -> float:
    """Returns this process's peak resident memory, MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
