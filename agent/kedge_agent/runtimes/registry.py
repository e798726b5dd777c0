"""Every runtime Kedge knows; which of them a board has, it says itself."""

from __future__ import annotations

from collections.abc import Mapping

from kedge_agent.runtimes.base import Runtime
from kedge_agent.runtimes.ncnn import Ncnn
from kedge_agent.runtimes.onnxruntime import OnnxRuntime
from kedge_agent.runtimes.openvino import OpenVino
from kedge_agent.runtimes.rknn import Rknn
from kedge_shared.manifest import Manifest

RUNTIMES: Mapping[str, Runtime] = {
    each.name: each for each in (OnnxRuntime(), OpenVino(), Ncnn(), Rknn())
}


def available() -> dict[str, str]:
    """Returns runtime → version of those installed here; imports each vendor."""
    facts = (each.probe() for each in RUNTIMES.values())
    return {each.name: each.version for each in facts if each is not None}


def takes_mb(manifest: Manifest, runtimes: Mapping[str, Runtime] = RUNTIMES) -> float:
    """Returns the memory that loading a build takes, MiB; 0 where its runtime is not known."""
    runtime = runtimes.get(manifest.runtime.name)
    return 0.0 if runtime is None else runtime.estimate(manifest.engine_files) / 2**20
