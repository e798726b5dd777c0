"""What figures were measured on, in words."""

from __future__ import annotations

import os
import platform
from pathlib import Path

#: Where ARM boards say what they are; their /proc/cpuinfo often does not.
_BOARD = Path("/proc/device-tree/model")


def describe() -> str:
    """Returns processor, cores and, on x86, whether it has VNNI."""
    try:
        cpuinfo = Path("/proc/cpuinfo").read_text()
    except OSError:
        return platform.machine()
    return in_words(cpuinfo, _board(), platform.machine(), os.cpu_count() or 1)


def in_words(cpuinfo: str, board: str, arch: str, cores: int) -> str:
    """Returns :func:`describe`'s sentence for the contents of /proc/cpuinfo.

    Args:
        cpuinfo: The file's text.
        board: What the board calls itself; empty on a PC.
        arch: ``platform.machine()``.
        cores: Logical processors.
    """
    fields = {
        name.strip(): value.strip()
        for name, colon, value in (line.partition(":") for line in cpuinfo.splitlines())
        if colon
    }
    words = [fields.get("model name") or board or arch, f"{cores} cores"]
    if "flags" in fields:
        words.append("with VNNI" if "vnni" in fields["flags"] else "without VNNI")
    return ", ".join(words)


def _board() -> str:
    try:
        return _BOARD.read_text().strip("\0\n ")
    except OSError:
        return ""
