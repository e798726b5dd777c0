"""Threads of a real runtime that was loaded at nice 19 serve at the loop's priority."""

from __future__ import annotations

import os
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

from kedge_agent import limits
from kedge_agent.blobs import BlobStore
from kedge_agent.detector import Detections
from kedge_agent.hotswap import HotEngine
from kedge_agent.runtimes.base import Engine
from kedge_agent.runtimes.registry import RUNTIMES
from tests.sim.engine import FRAME, slot_of
from tests.sim.onnx_engine import SIZE, tiny_onnx
from tests.sim.store import put

THREADS = 3


class Bare:
    """A runtime's engine without pre- and post-processing."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.slot = slot_of("bare")

    def detect(self, _: np.ndarray) -> Detections:
        self._engine.infer(np.zeros((1, 3, SIZE, SIZE), np.float32))
        return Detections(np.zeros((0, 6), np.float32), (), 1.0, finite=True)

    def close(self) -> None:
        self._engine.close()


def niceness() -> dict[int, int]:
    """Returns the niceness of each thread of this process, as the kernel tells it."""
    found = {}
    for each in Path("/proc/self/task").iterdir():
        # The name may hold blanks and brackets; field 19 of proc(5) is the 17th after it.
        with suppress(FileNotFoundError):  # it has ended meanwhile
            fields = (each / "stat").read_text().rpartition(")")[2].split()
            found[int(each.name)] = int(fields[16])
    return found


@pytest.mark.parametrize("name", ["onnxruntime", "openvino"])
def test_threads_of_an_engine_loaded_in_the_background(tmp_path: Path, name: str) -> None:
    store = BlobStore(tmp_path)
    blob = store.open_verified(put(store, tiny_onnx()))
    hot = HotEngine()
    # The vendor's own threads, made at its import, are not the engine's.
    assert RUNTIMES[name].probe() is not None
    before, at_load = set(niceness()), {}
    loader: list[int] = []

    def make() -> Bare:
        engine = Bare(RUNTIMES[name].load({"engine": blob}, cast("Any", None), threads=THREADS))
        engine.detect(FRAME)
        loader.append(threading.get_native_id())  # it may be seen ending a moment later
        at_load.update(niceness())
        return engine

    hot.load(cast("Any", make))
    hot.swap()
    for _ in range(5):
        hot.infer(FRAME)
    made = {tid: nice for tid, nice in niceness().items() if tid not in {*before, *loader}}
    hot.close()
    assert made, "the runtime made no threads: the test shows nothing"
    assert {at_load[each] for each in made if each in at_load} == {limits.NICEST}, (
        "made by the loader, they inherit its niceness"
    )
    usual = os.getpriority(os.PRIO_PROCESS, threading.get_native_id())
    if os.geteuid() == 0:
        assert set(made.values()) == {usual}
