"""The Python that a board brings for TensorRT, where the agent's own has no bindings.

Light: the preflight child asks it before its walls stand, when nothing may make threads yet.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from functools import cache
from pathlib import Path

from kedge_agent.children import clean_environment
from kedge_agent.hosting import walled
from kedge_agent.hosting.process import Host
from kedge_shared.versions import numbers

FOLDER = Path(__file__).parent
#: Names such a Python, for boards where it lies elsewhere.
PYTHON_ENV = "KEDGE_TENSORRT_PYTHON"
#: Runtimes whose driver reserves more address space than any board has memory.
ON_GPU = frozenset({"tensorrt", "tensorrt-rtx", "onnxruntime-cuda"})
_BINDINGS = "usr/lib/python3*/dist-packages/tensorrt"
_PROBE = "import json, tensorrt; print(json.dumps(tensorrt.__version__))"
_PROBE_SECONDS = 60
#: Runtime that builds its plans from ONNX → module of its bindings.
_MODULES = {"tensorrt": "tensorrt", "tensorrt-rtx": "tensorrt_rtx"}


def find(root: Path = Path("/")) -> Path | None:
    """Returns it; ``None`` where the agent's own Python has bindings, or none has.

    Args:
        root: Of the file system.
    """
    if importlib.util.find_spec("tensorrt") is not None:
        return None
    named = os.environ.get(PYTHON_ENV, "")
    if named:
        return Path(named)
    names = {each.parts[-3] for each in root.glob(_BINDINGS)}
    there = (each for name in names if (each := root / "usr/bin" / name).exists())
    return max(there, key=lambda each: numbers(each.name.removeprefix("python")), default=None)


@cache
def host(python: Path) -> Host:
    """Returns what starts the processes of its engines, the same for all who ask."""
    return Host(walled.command((str(python), "-I", str(FOLDER / "engine_host.py"))))


def maker(runtime: str) -> tuple[str, ...] | None:
    """Returns the command that builds plans for a runtime here, or ``None`` where nothing does."""
    module = _MODULES.get(runtime)
    if module is None:
        return None
    python = find() if runtime == "tensorrt" else None
    program = str(FOLDER / "plan_maker.py")
    return walled.command((str(python or sys.executable), "-I", program, module))


def version(python: Path) -> str:
    """Returns its TensorRT's version, asked until it tells one; empty if it does not."""
    try:
        return _version(python)
    except (OSError, ValueError, subprocess.SubprocessError):
        return ""


@cache
def _version(python: Path) -> str:
    told = subprocess.run(
        [str(python), "-I", "-c", _PROBE], capture_output=True, check=True,
        timeout=_PROBE_SECONDS, env=clean_environment(),
    )  # fmt: skip
    return str(json.loads(told.stdout))
