"""Every runtime Kedge knows; which of them a board has, it says itself."""

from __future__ import annotations

import math
from collections.abc import Mapping

from kedge_agent.building.forms import Loadable
from kedge_agent.runtimes.base import Runtime
from kedge_agent.runtimes.ncnn import Ncnn
from kedge_agent.runtimes.onnxruntime import OnnxRuntime
from kedge_agent.runtimes.onnxruntime_cuda import OnnxRuntimeCuda
from kedge_agent.runtimes.openvino import OpenVino
from kedge_agent.runtimes.rknn import Rknn
from kedge_agent.runtimes.tensorrt import TensorRt, classic
from kedge_agent.sensors import nvml

_KNOWN: tuple[Runtime, ...] = (
    OnnxRuntime(), OnnxRuntimeCuda(), OpenVino(), classic(),
    TensorRt("tensorrt-rtx", "tensorrt_rtx"), Ncnn(), Rknn(),
)  # fmt: skip
RUNTIMES: Mapping[str, Runtime] = {each.name: each for each in _KNOWN}


def available() -> dict[str, str]:
    """Returns runtime → version of those installed here; imports each vendor."""
    facts = (each.probe() for each in RUNTIMES.values())
    return {each.name: each.version for each in facts if each is not None}


def takes_mb(wanted: Loadable, runtimes: Mapping[str, Runtime] = RUNTIMES) -> float:
    """Returns the memory that loading takes, MiB; 0 where its runtime is not known."""
    if wanted.memory_mb is not None:
        return wanted.memory_mb
    runtime = runtimes.get(wanted.runtime)
    return 0.0 if runtime is None else runtime.estimate(wanted.files) / 2**20


def left_mb(wanted: Loadable, runtimes: Mapping[str, Runtime] = RUNTIMES) -> float:
    """Returns what a card's own memory has left for it, MiB; infinite where none is concerned."""
    runtime = runtimes.get(wanted.runtime)
    free = nvml.free_memory_mb() if runtime is not None and runtime.on_gpu else None
    return math.inf if free is None else free
