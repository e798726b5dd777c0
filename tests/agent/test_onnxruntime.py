"""ONNX Runtime on the CPU, by the real library."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kedge_agent.blobs import BlobStore
from kedge_agent.runtimes.onnxruntime import OnnxRuntime
from tests.agent.test_tensorrt import BATCH, Spec, blobs
from tests.sim.onnx_engine import tiny_onnx


@pytest.mark.parametrize(
    "given", [BATCH.astype(np.float64), np.asfortranarray(BATCH)], ids=["double", "other order"]
)
def test_a_batch_that_must_be_copied_first_lives_until_it_was_run(
    tmp_path: Path, given: Any
) -> None:
    """It is bound by its address: what was freed before the run would be read as pixels."""
    engine = OnnxRuntime().load(blobs(BlobStore(tmp_path), tiny_onnx()), Spec(), threads=1)
    expected = engine.infer(BATCH).copy()
    for _ in range(5):
        assert np.array_equal(engine.infer(given), expected)
    engine.close()
