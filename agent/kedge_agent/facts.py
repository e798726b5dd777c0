"""What this board is, for enrolment and for the fit of a build."""

from __future__ import annotations

import json
import platform
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from kedge_agent import hardware
from kedge_agent.children import clean_environment
from kedge_agent.limits import total_memory_mb
from kedge_agent.sensors import files, nvml
from kedge_agent.ways import WAYS
from kedge_shared import __version__
from kedge_shared.protocol import DeviceFacts

#: Flags that decide which kernels a runtime takes.
_FLAGS = ("avx2", "avx512f", "avx512_vnni", "avx_vnni", "fma", "asimd", "asimddp", "i8mm")
_ROOT = Path("/")
_TIMEOUT_SECONDS = 60
_ASKED = (
    "import json, sys; from kedge_agent.children import leave; "
    "from kedge_agent.runtimes.registry import RUNTIMES, available; "
    "print(); print(json.dumps({})); leave()"
)
_ALL, _NAMES = "available()", "dict.fromkeys(RUNTIMES, '')"
_ONE = "{each.name: each.version for each in [RUNTIMES[sys.argv[1]].probe()] if each}"


def cpu_flags(root: Path = _ROOT) -> tuple[str, ...]:
    """Returns the flags of /proc/cpuinfo that matter to a runtime."""
    words = set(files.text(root / "proc/cpuinfo").split())
    return tuple(each for each in _FLAGS if each in words)


def runtimes() -> dict[str, str]:
    """Returns runtime → version, asked in a child: the updater imports no runtime.

    Where one of them crashes or hangs there, each is asked in a child of its own: the others are
    on the board all the same.
    """
    found = _asked(_ALL)
    if found is not None:
        return found
    each = (_asked(_ONE, name) or {} for name in _asked(_NAMES) or {})
    return {name: version for told in each for name, version in told.items()}


def _asked(what: str, *arguments: str) -> dict[str, str] | None:
    """Returns what a child tells of the runtimes; ``None`` if it dies of it or takes too long."""
    try:
        told = subprocess.run(
            [sys.executable, "-c", _ASKED.replace("{}", what), *arguments],
            capture_output=True, text=True, timeout=_TIMEOUT_SECONDS, env=clean_environment(),
            check=True,
        )  # fmt: skip
        # Vendors print what they like before.
        return dict(json.loads(told.stdout.splitlines()[-1]))
    except (OSError, ValueError, IndexError, subprocess.SubprocessError):
        return None


def gather(
    root: Path = _ROOT,
    installed: Mapping[str, str] | None = None,
    arch: str = "",
    gpu: Callable[[], nvml.Gpu | None] = nvml.device,
) -> DeviceFacts:
    """Returns the facts.

    Args:
        root: Of the file system.
        installed: Runtime → version; by default those that import here.
        arch: As ``platform.machine()`` says, which is the default.
        gpu: Tells of the first discrete GPU.
    """
    found, card = hardware.look(root), gpu()
    return DeviceFacts(
        arch=arch or platform.machine(),
        memory_mb=round(hardware.memory_mb(root) or total_memory_mb(), 1),
        runtimes=runtimes() if installed is None else dict(installed),
        cpu_flags=cpu_flags(root),
        sm=card.sm if card else found.sm,
        agent=__version__,
        board=found.board,
        soc=found.soc,
        module=found.module,
        l4t=found.l4t,
        jetpack=found.jetpack,
        python=platform.python_version(),
        drivers=found.drivers,
        libraries=found.libraries,
        cuda=found.cuda,
        lean_runtimes=found.lean_runtimes,
        # A headless driver and WSL2 show no card to the kernel's graphics.
        gpus=tuple(sorted({*found.gpus, "nvidia"})) if card and not found.soc else found.gpus,
        gpu_memory_mb=card.memory_mb if card else None,
        ways=WAYS,
    )
