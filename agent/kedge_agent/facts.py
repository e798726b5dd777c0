"""What this board is, for enrolment and for the fit of a build."""

from __future__ import annotations

import json
import platform
import subprocess
import sys
from pathlib import Path

from kedge_agent.children import clean_environment
from kedge_agent.limits import total_memory_mb
from kedge_shared import __version__
from kedge_shared.protocol import DeviceFacts

#: Flags that decide which kernels a runtime takes.
_FLAGS = ("avx2", "avx512f", "avx512_vnni", "avx_vnni", "fma", "asimd", "asimddp", "i8mm")
_TIMEOUT_SECONDS = 60
_PROBE = (
    "import json; from kedge_agent.runtimes.registry import available; "
    "print(json.dumps(available()))"
)


def cpu_flags() -> tuple[str, ...]:
    """Returns the flags of /proc/cpuinfo that matter to a runtime."""
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return ()
    words = set(text.split())
    return tuple(each for each in _FLAGS if each in words)


def runtimes() -> dict[str, str]:
    """Returns runtime → version, asked in a child: the updater imports no runtime."""
    result = subprocess.run(
        [sys.executable, "-c", _PROBE],
        capture_output=True,
        text=True,
        timeout=_TIMEOUT_SECONDS,
        env=clean_environment(),
        check=False,
    )
    return dict(json.loads(result.stdout)) if result.returncode == 0 else {}


def gather() -> DeviceFacts:
    """Returns the facts."""
    return DeviceFacts(
        arch=platform.machine(),
        memory_mb=round(total_memory_mb(), 1),
        runtimes=runtimes(),
        cpu_flags=cpu_flags(),
        agent=__version__,
    )
