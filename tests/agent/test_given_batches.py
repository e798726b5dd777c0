"""What runtimes read by its address lives for as long as they read it; by the real libraries."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kedge_agent.blobs import BlobStore
from kedge_agent.runtimes.base import Engine
from kedge_agent.runtimes.ncnn import Ncnn
from kedge_agent.runtimes.onnxruntime import OnnxRuntime
from tests.agent.test_tensorrt import BATCH, Spec
from tests.sim.onnx_engine import tiny_onnx
from tests.sim.store import put

#: ncnn's own text form: what comes in goes out, negative numbers as none.
_PARAM = b"7767517\n2 2\nInput in0 0 1 in0\nReLU relu 1 1 in0 out0\n"


@pytest.fixture(params=["onnxruntime", "ncnn"])
def engine(request: pytest.FixtureRequest, tmp_path: Path) -> Engine:
    pytest.importorskip(request.param)
    store = BlobStore(tmp_path)
    runtime: Any = {"onnxruntime": OnnxRuntime, "ncnn": Ncnn}[request.param]()
    files = {"onnxruntime": {"engine": tiny_onnx()},
             "ncnn": {"engine": _PARAM, "engine-weights": b"\0" * 4}}[request.param]  # fmt: skip
    opened = {role: store.open_verified(put(store, data)) for role, data in files.items()}
    found: Engine = runtime.load(opened, Spec(), threads=1)
    return found


@pytest.mark.parametrize(
    "given", [BATCH.astype(np.float64), np.asfortranarray(BATCH)], ids=["double", "other order"]
)
def test_a_batch_that_must_be_copied_first_lives_until_it_was_run(
    engine: Engine, given: Any
) -> None:
    """It is bound by its address: what was freed before the run would be read as pixels."""
    expected = engine.infer(BATCH).copy()
    for _ in range(5):
        assert np.array_equal(engine.infer(given), expected)
    engine.close()
