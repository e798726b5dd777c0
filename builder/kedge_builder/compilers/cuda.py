"""What CUDA tells of this machine: the first GPU's SM and the toolkit's major, without packages."""

from __future__ import annotations

import ctypes
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

#: CUdevice_attribute: COMPUTE_CAPABILITY_MAJOR and _MINOR (CUDA driver API).
_MAJOR, _MINOR = 75, 76
_TOOLKIT = Path("/usr/local/cuda")


def device_sm(load: Callable[[str], Any] = ctypes.CDLL) -> int | None:
    """Returns the first GPU's compute capability times ten, or ``None`` without one."""
    try:
        driver = load("libcuda.so.1")
    except OSError:
        return None
    device, major, minor = ctypes.c_int(), ctypes.c_int(), ctypes.c_int()
    calls: tuple[Callable[[], int], ...] = (
        lambda: driver.cuInit(0),
        lambda: driver.cuDeviceGet(ctypes.byref(device), 0),
        lambda: driver.cuDeviceGetAttribute(ctypes.byref(major), _MAJOR, device),
        lambda: driver.cuDeviceGetAttribute(ctypes.byref(minor), _MINOR, device),
    )
    if any(call() != 0 for call in calls):
        return None
    return 10 * major.value + minor.value


def toolkit_major(folder: Path = _TOOLKIT) -> int | None:
    """Returns the major of the CUDA under ``folder``, or ``None``."""
    try:
        told = str(json.loads((folder / "version.json").read_text())["cuda"]["version"])
    except (OSError, ValueError, KeyError, TypeError):
        try:
            told = (folder / "version.txt").read_text()
        except OSError:
            return None
    found = re.search(r"\d+", told)
    return int(found[0]) if found else None
