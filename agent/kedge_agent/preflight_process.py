"""Starts the preflight child and survives whatever becomes of it."""

from __future__ import annotations

import msgspec

from kedge_agent import limits
from kedge_agent.children import Left, run_module
from kedge_agent.local_protocol import PreflightJob, PreflightResult


async def run_preflight(job: PreflightJob, timeout_seconds: float = 120.0) -> PreflightResult:
    """Runs a candidate off the live path.

    Args:
        job: What to examine.
        timeout_seconds: After it the child is killed: an engine that hangs is refused.

    Returns:
        What was measured; a crash, hang or kill comes back as ``ok=False`` with its cause.
    """
    limited = msgspec.structs.replace(
        job,
        # What the board has now, less what the rest of it needs; the limit is on what is reserved.
        memory_mb=job.memory_mb or limits.spare_memory_mb(),
        # The timeout ends it before, unless whoever watches it is gone.
        cpu_seconds=job.cpu_seconds or timeout_seconds * (job.threads + 1),
    )
    left = await run_module("kedge_agent.preflight_child", msgspec.json.encode(limited),
                            timeout_seconds)  # fmt: skip
    if left.status is None:
        return PreflightResult(
            ok=False, error=f"engine hangs: no result in {timeout_seconds:.0f} s"
        )
    return read_result(left.status, left.output, left.errors)


def read_result(status: int, output: bytes, errors: bytes) -> PreflightResult:
    """Turns what a child left into a result."""
    left = Left(status, output, errors)
    if left.signal == "SIGKILL":
        # Nobody but the kernel kills it so: it offers itself to be the first when memory is short.
        return PreflightResult(
            ok=False, short=True, error="preflight was killed (SIGKILL): memory was short"
        )
    if left.signal == "SIGXCPU":
        return PreflightResult(ok=False, error="engine hangs: it used up its processor time")
    if left.signal:
        return PreflightResult(ok=False, error=f"engine crashed its process ({left.signal})")
    try:
        return msgspec.json.decode(output, type=PreflightResult)
    except msgspec.MsgspecError:
        return PreflightResult(ok=False, error=f"preflight ended with {status}: {left.last_words}")
