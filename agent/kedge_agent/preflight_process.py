"""Starts the preflight child and survives whatever becomes of it."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from contextlib import suppress

import msgspec

from kedge_agent.local_protocol import PreflightJob, PreflightResult

#: What the child may know of the environment: no tokens, no addresses.
_ENVIRONMENT = ("PATH", "HOME", "LANG", "LD_LIBRARY_PATH", "PYTHONPATH", "TMPDIR", "VIRTUAL_ENV")
_ERROR_BYTES = 2000


def clean_environment() -> dict[str, str]:
    """Returns the environment for processes that get no credentials."""
    return {name: os.environ[name] for name in _ENVIRONMENT if name in os.environ}


async def run_preflight(job: PreflightJob, timeout_seconds: float = 120.0) -> PreflightResult:
    """Runs a candidate off the live path.

    Args:
        job: What to examine.
        timeout_seconds: After it the child is killed: an engine that hangs is refused.

    Returns:
        What was measured; a crash, hang or kill comes back as ``ok=False`` with its cause.
    """
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "kedge_agent.preflight",
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=clean_environment(),
    )  # fmt: skip
    try:
        output, errors = await asyncio.wait_for(
            child.communicate(msgspec.json.encode(job)), timeout_seconds
        )
    except asyncio.TimeoutError:
        return PreflightResult(
            ok=False, error=f"engine hangs: no result in {timeout_seconds:.0f} s"
        )
    finally:
        if child.returncode is None:
            with suppress(ProcessLookupError):
                child.kill()
            await child.wait()
    return read_result(child.returncode or 0, output, errors)


def read_result(status: int, output: bytes, errors: bytes) -> PreflightResult:
    """Turns what a child left into a result."""
    if status < 0:
        name = signal.Signals(-status).name
        return PreflightResult(ok=False, error=f"engine crashed its process ({name})")
    try:
        return msgspec.json.decode(output, type=PreflightResult)
    except msgspec.MsgspecError:
        last = errors[-_ERROR_BYTES:].decode(errors="replace").strip().splitlines()[-1:]
        return PreflightResult(ok=False, error=f"preflight ended with {status}: {' '.join(last)}")
