"""The preflight child: a process that may die of a candidate.

``python -m kedge_agent.preflight_child`` reads a job on standard input and writes a result on
standard output. It is the nicest process of the board and the first that the kernel kills. It
gives up what it can before anything foreign, or anything that makes threads, is even imported.
"""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from pathlib import Path

import msgspec

from kedge_agent import sandbox
from kedge_agent.blobs import HeldStore
from kedge_agent.children import leave
from kedge_agent.errors import EngineKilled
from kedge_agent.gpu import board_python
from kedge_agent.local_protocol import PreflightJob, PreflightResult, Slot
from kedge_shared.errors import KedgeError
from kedge_shared.manifest import MANIFEST_LIMIT_BYTES, read_manifest

_JOB_LIMIT_BYTES = 64 * 1024


def main() -> None:
    """Reads a job, measures, writes the result."""
    job = msgspec.json.decode(sys.stdin.buffer.read(_JOB_LIMIT_BYTES), type=PreflightJob)
    # What a vendor prints must not end up in the answer.
    answer = os.dup(1)
    os.dup2(2, 1)
    store = HeldStore(Path(job.blobs), job.sealer)
    # A GPU's driver reserves more of the address space than any board has memory.
    memory_mb = 0.0 if _ready(job, store) else job.memory_mb
    walls = sandbox.enter([store.root], memory_mb=memory_mb, cpu_seconds=job.cpu_seconds)
    result = msgspec.structs.replace(_examine(job, store), sandbox=walls)
    os.write(answer, msgspec.json.encode(result))
    leave()


def _ready(job: PreflightJob, store: HeldStore) -> bool:
    """Starts what cannot be started behind the walls; says whether a GPU is concerned."""
    names = [_runtime(each, store) for each in (job.candidate, job.active) if each is not None]
    python = board_python.find() if "tensorrt" in names else None
    if python is not None:
        board_python.version(python)
        board_python.host(python).reserve(names.count("tensorrt"))
    return not board_python.ON_GPU.isdisjoint(names)


def _runtime(slot: Slot, store: HeldStore) -> str:
    """Returns what loads a slot's engine; empty where that cannot be read: its loader tells why."""
    if slot.form is not None:
        return slot.form.runtime
    with suppress(KedgeError):
        return read_manifest(store.read_verified(slot.manifest, MANIFEST_LIMIT_BYTES)).runtime.name
    return ""


def _examine(job: PreflightJob, store: HeldStore) -> PreflightResult:
    try:
        import cv2

        from kedge_agent.preflight import examine

        cv2.setNumThreads(1)
        return examine(job, store)
    except (MemoryError, EngineKilled) as error:
        return PreflightResult(ok=False, short=True, error=str(error) or "out of memory")
    except KedgeError as error:
        return PreflightResult(ok=False, error=str(error))


if __name__ == "__main__":
    main()
