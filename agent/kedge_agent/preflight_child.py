"""The preflight child: a process that may die of a candidate.

``python -m kedge_agent.preflight_child`` reads a job on standard input and writes a result on
standard output. It is the nicest process of the board and the first that the kernel kills. It
gives up what it can before anything foreign, or anything that makes threads, is even imported.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import msgspec

from kedge_agent import sandbox
from kedge_agent.blobs import HeldStore
from kedge_agent.local_protocol import PreflightJob, PreflightResult
from kedge_shared.errors import KedgeError

_JOB_LIMIT_BYTES = 64 * 1024


def main() -> None:
    """Reads a job, measures, writes the result."""
    job = msgspec.json.decode(sys.stdin.buffer.read(_JOB_LIMIT_BYTES), type=PreflightJob)
    # What a vendor prints must not end up in the answer.
    answer = os.dup(1)
    os.dup2(2, 1)
    store = HeldStore(Path(job.blobs))
    walls = sandbox.enter([store.root], memory_mb=job.memory_mb, cpu_seconds=job.cpu_seconds)
    result = msgspec.structs.replace(_examine(job, store), sandbox=walls)
    os.write(answer, msgspec.json.encode(result))


def _examine(job: PreflightJob, store: HeldStore) -> PreflightResult:
    try:
        import cv2

        from kedge_agent.preflight import examine

        cv2.setNumThreads(1)
        return examine(job, store)
    except KedgeError as error:
        return PreflightResult(ok=False, error=str(error))
    except MemoryError as error:
        return PreflightResult(ok=False, short=True, error=str(error) or "out of memory")


if __name__ == "__main__":
    main()
