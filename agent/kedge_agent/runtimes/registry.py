"""Every runtime Kedge knows; which of them a board has, it says itself."""

from __future__ import annotations

from collections.abc import Mapping

from kedge_agent.runtimes.base import Runtime
from kedge_agent.runtimes.onnxruntime import OnnxRuntime
from kedge_agent.runtimes.openvino import OpenVino

RUNTIMES: Mapping[str, Runtime] = {each.name: each for each in (OnnxRuntime(), OpenVino())}


def available() -> dict[str, str]:
    """Returns runtime → version of those installed here; imports each vendor."""
    facts = (each.probe() for each in RUNTIMES.values())
    return {each.name: each.version for each in facts if each is not None}
