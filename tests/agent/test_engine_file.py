"""HotEngine in people's own loops: engines from files, and the example as it stands in the docs."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kedge_agent.engine_file import open_engine
from kedge_agent.errors import EngineError
from kedge_shared.errors import StorageError
from tests.sim.onnx_engine import SIZE, tiny_onnx

CLASSES = ["circle", "square"]


@pytest.fixture
def engines(tmp_path: Path) -> list[Path]:
    found = [tmp_path / "first.onnx", tmp_path / "second.onnx"]
    for seed, each in enumerate(found):
        each.write_bytes(tiny_onnx(seed))
    return found


@pytest.fixture
def example() -> Any:
    path = Path(__file__).parents[2] / "examples" / "own_loop.py"
    spec = importlib.util.spec_from_file_location("own_loop", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_example_answers_every_frame_through_a_change(
    example: Any, engines: list[Path]
) -> None:
    answered = example.run(engines, CLASSES, [SIZE, SIZE], None, count=40, fps=200)
    assert set(answered) == {"first", "second"}
    assert sum(answered.values()) >= 40
    assert answered["first"] >= 10, "the change begins at a quarter"


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_an_engine_of_ones_own(engines: list[Path], runtime: str) -> None:
    frame = np.zeros((64, 48, 3), np.uint8)
    detector = open_engine(engines[0], classes=CLASSES, size=SIZE, runtime=runtime, frames=[frame])
    found = detector.detect(frame)
    assert (found.classes, found.finite, detector.slot.release) == (tuple(CLASSES), True, "first")
    detector.close()


def test_what_cannot_be_loaded_is_said(tmp_path: Path, engines: list[Path]) -> None:
    engines[0].write_bytes(b"garbage")
    with pytest.raises(EngineError, match="does not take"):
        open_engine(engines[0], classes=CLASSES, size=SIZE)
    with pytest.raises(EngineError, match="not on this machine"):
        open_engine(engines[1], classes=CLASSES, size=SIZE, runtime="tensorrt")
    with pytest.raises(StorageError, match=r"none\.onnx cannot be read: No such file"):
        open_engine(tmp_path / "none.onnx", classes=CLASSES, size=SIZE)
    with pytest.raises(EngineError, match=r"is not \(1, 7"):
        open_engine(engines[1], classes=[*CLASSES, "star"], size=SIZE)
