"""Children that may die of what they run: started without credentials, ended in time."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from contextlib import suppress
from dataclasses import dataclass
from typing import NoReturn

from kedge_agent import limits

#: What a child may know of the environment: no tokens, no addresses.
_ENVIRONMENT = (
    "PATH", "HOME", "LANG", "LD_LIBRARY_PATH", "PYTHONPATH", "TMPDIR", "VIRTUAL_ENV",
    "KEDGE_TENSORRT_PYTHON", "CUDA_VISIBLE_DEVICES",
)  # fmt: skip
#: CUDA counts the fastest GPU first, NVML by the bus: whoever measures memory or makes a plan must
#: mean the GPU that runs it. NVIDIA, CUDA C++ Programming Guide, "CUDA Environment Variables".
_GPU_ORDER = {"CUDA_DEVICE_ORDER": "PCI_BUS_ID"}
_ERROR_BYTES = 2000


@dataclass(frozen=True)
class Left:
    """What a child left behind.

    Attributes:
        status: Exit status, negative for a signal; ``None`` when it was killed for hanging.
        output: Standard output.
        errors: Standard error.
    """

    status: int | None
    output: bytes
    errors: bytes

    @property
    def signal(self) -> str:
        """Name of the signal that ended it, or empty."""
        ended = self.status is not None and self.status < 0
        return signal.Signals(-(self.status or 0)).name if ended else ""

    @property
    def last_words(self) -> str:
        """The last line it wrote to standard error."""
        lines = self.errors[-_ERROR_BYTES:].decode(errors="replace").strip().splitlines()
        return " ".join(lines[-1:])


def clean_environment() -> dict[str, str]:
    """Returns the environment for processes that get no credentials.

    All that load engines are such: the runner, what it starts, preflight and builds of plans.
    """
    return {name: os.environ[name] for name in _ENVIRONMENT if name in os.environ} | _GPU_ORDER


def leave(status: int = 0) -> NoReturn:
    """Ends this process without what libraries do at exit: it has answered, and holds nothing.

    OpenVINO 2025.2 aborts there on Arm (openvinotoolkit/openvino issue 31633), which would pass for
    an engine that kills its process.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


async def run_module(module: str, job: bytes, timeout_seconds: float) -> Left:
    """Runs ``python -m module`` with ``job`` on its standard input, and outlives it.

    Args:
        module: To run.
        job: Its input.
        timeout_seconds: After it the child is killed.
    """
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-m", module,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**clean_environment(), limits.PARENT_ENV: str(os.getpid())},
    )  # fmt: skip
    try:
        output, errors = await asyncio.wait_for(child.communicate(job), timeout_seconds)
    except asyncio.TimeoutError:
        return Left(None, b"", b"")
    finally:
        if child.returncode is None:
            with suppress(ProcessLookupError):
                child.kill()
            await child.wait()
    return Left(child.returncode or 0, output, errors)
