"""Resident memory that loading an engine adds, measured in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from kedge_builder.measure.engines import EngineFile, load

_TIMEOUT_SECONDS = 120
_PAGE_MIB = os.sysconf("SC_PAGE_SIZE") / 2**20


def added_mb(runtime: str, files: Sequence[EngineFile], size: int, threads: int) -> float | None:
    """Returns MiB that load and first frame add, or ``None`` if it could not be measured."""
    job = {
        "runtime": runtime,
        "files": [[each.role, str(each.path)] for each in files],
        "size": size,
        "threads": threads,
    }
    result = subprocess.run(
        [sys.executable, "-m", "kedge_builder.measure.memory"],
        input=json.dumps(job),
        capture_output=True,
        text=True,
        timeout=_TIMEOUT_SECONDS,
        check=False,
    )
    return float(result.stdout) if result.returncode == 0 else None


def _resident_mb() -> float:
    return int(Path("/proc/self/statm").read_text().split()[1]) * _PAGE_MIB


def main() -> None:
    """Reads a job on standard input and prints MiB."""
    import numpy as np

    job = json.load(sys.stdin)
    if job["runtime"] == "openvino":
        import openvino

        openvino.Core()
    else:
        import onnxruntime  # noqa: F401 - its import is not the engine's memory
    before = _resident_mb()
    files = [EngineFile(role, Path(path)) for role, path in job["files"]]
    engine = load(job["runtime"], files, job["threads"])
    engine.infer(np.zeros((1, 3, job["size"], job["size"]), dtype=np.float32))
    print(max(0.0, _resident_mb() - before))


if __name__ == "__main__":
    main()
