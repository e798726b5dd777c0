"""A hosted engine's process on a board, vendors faked: ``board_host RUNTIME WHAT SOCKET_FD``.

``WHAT`` is RKNN's number of classes, or TensorRT's version.
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np

from kedge_agent.gpu.engine_host import Cuda
from kedge_agent.hosting import child
from kedge_agent.runtimes import registry
from kedge_agent.runtimes.rknn import Rknn
from kedge_agent.runtimes.tensorrt import TensorRt
from tests.sim.gpu import fake_tensorrt
from tests.sim.gpu.cudart import FakeCudart
from tests.sim.rknn import ROCK, FakeLite


def rknn(classes: str) -> Rknn:
    """Returns RKNN over a fake that gives six outputs of a 64 px detector."""
    FakeLite.outputs = [
        np.zeros((1, channels, grid, grid), np.float32)
        for grid in (8, 4, 2) for channels in (64, int(classes))
    ]  # fmt: skip
    return Rknn(lambda: ROCK, lambda: FakeLite)


def tensorrt(version: str) -> TensorRt:
    """Returns TensorRT over the fake of a version."""
    cudart = FakeCudart()
    sys.modules["tensorrt"] = fake_tensorrt.module(version, cudart)
    return TensorRt("tensorrt", "tensorrt", lambda: Cuda(cudart))


def main() -> None:
    name, what = sys.argv.pop(1), sys.argv.pop(1)
    known: Any = registry.RUNTIMES
    known[name] = {"rknn": rknn, "tensorrt": tensorrt}[name](what)
    child.main()


if __name__ == "__main__":
    main()
