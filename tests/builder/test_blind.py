"""An engine whose scores tell nothing apart has seen nothing, whatever the scores are."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from kedge_builder.data.datasets import read_data
from kedge_builder.measure.evaluate import evaluate
from kedge_shared.detections import Array
from kedge_shared.manifest import InputSpec, OutputSpec


class Constant:
    def __init__(self, score: float) -> None:
        self.score = score

    def infer(self, batch: Array) -> Array:
        raw = np.full((1, 8, 20), 50, dtype=np.float32)
        raw[:, 4:] = self.score
        return raw


@pytest.mark.parametrize("score", [0.0, 0.5, 1.0])
def test_constant_scores_see_nothing(shapes: Path, score: float) -> None:
    data = read_data(shapes, seed=0, gate_limit=None)
    read = OutputSpec(head="yolo-v8", classes=data.classes)
    given = InputSpec(height=160, width=160)
    assert evaluate(Constant(score), data.gate[:2], given, read, lambda: None).seen == 0
