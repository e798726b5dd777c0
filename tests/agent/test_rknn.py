"""RKNN on the board, with Rockchip's library faked: what is refused, what the NPU is given."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

from kedge_agent.blobs import seal
from kedge_agent.errors import EngineError
from kedge_agent.hardware import Hardware
from kedge_agent.runtimes.base import Engine
from kedge_agent.runtimes.registry import RUNTIMES
from kedge_agent.runtimes.rknn import Rknn
from kedge_shared.device_classes import RuntimeRange
from kedge_shared.manifest import InputSpec, OutputSpec
from kedge_shared.vision import prepare
from tests.sim.rknn import ROCK, FakeLite, rknn_file

CLASSES = ("square", "circle")


@dataclass(frozen=True)
class Spec:
    runtime = RuntimeRange(name="rknn", range=">=2.3,<3")
    input = InputSpec(height=64, width=64)
    output = OutputSpec(head="yolo-v8", classes=CLASSES)


def quiet_head() -> list[np.ndarray]:
    """Six outputs of a 64 px detector of two classes in which nothing speaks up."""
    grids = (8, 4, 2)
    return [
        each for grid in grids
        for each in (np.zeros((1, 64, grid, grid), np.float32),
                     np.full((1, len(CLASSES), grid, grid), -9, np.float32))
    ]  # fmt: skip


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    FakeLite.made, FakeLite.outputs, FakeLite.codes = [], quiet_head(), {}
    yield


@contextmanager
def loaded(tmp_path: Path, data: bytes, board: Hardware = ROCK) -> Iterator[Engine]:
    path = tmp_path / "model.rknn"
    path.write_bytes(data)
    with seal(path) as blob:
        yield Rknn(lambda: board, lambda: FakeLite).load({"engine": blob}, Spec(), threads=1)


@pytest.mark.parametrize(
    ("data", "board", "said"),
    [
        (rknn_file("2.3.2"), ROCK, "is of toolkit 2.3.2, the board's librknnrt is 2.5.0"),
        (rknn_file(), replace(ROCK, libraries={"rknn": "2.3.2"}),
         "is of toolkit 2.5.0, the board's librknnrt is 2.3.2"),
        (rknn_file(soc=("rk3576",)), ROCK, "is for rk3576, this board is rk3588"),
        (rknn_file(), replace(ROCK, soc="rk3566"), "is for rk3588, this board is rk3566"),
        (rknn_file(), replace(ROCK, libraries={}), "the board has no librknnrt.so"),
        (rknn_file()[:-1], ROCK, "is cut off"),
        (rknn_file()[:300], ROCK, "is cut off"),
        (rknn_file()[:20], ROCK, "is cut off: 20 bytes"),
        (b"ONNX" + rknn_file()[4:], ROCK, "this is no RKNN model"),
        (rknn_file().replace(b"target_platform", b"target_platfurm"), ROCK, "does not say which"),
        (rknn_file()[:320] + b"\xff" * 8 + rknn_file()[328:], ROCK, "it is damaged"),
    ],
)  # fmt: skip
def test_a_file_for_another_board_never_reaches_the_vendor(
    data: bytes, board: Hardware, said: str, tmp_path: Path
) -> None:
    with pytest.raises(EngineError, match=said) as refused, loaded(tmp_path, data, board):
        pass
    assert "\n" not in str(refused.value)
    assert FakeLite.made == [], "Rockchip's code saw it"


def test_the_npu_is_given_the_frame_s_bytes_and_its_outputs_are_decoded(tmp_path: Path) -> None:
    heads = quiet_head()
    heads[0][0, [7, 23, 39, 55], 3, 5] = 40  # 7 steps of 8 px to each side
    heads[1][0, 1, 3, 5] = 2
    FakeLite.outputs = heads
    frame = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    batch, _ = prepare(frame, Spec.input)
    with loaded(tmp_path, rknn_file()) as engine:
        raw = engine.infer(batch)
        image, layout = FakeLite.made[0].seen
        np.testing.assert_array_equal(image, frame[None, :, :, ::-1])
        assert (image.dtype, layout) == (np.uint8, ["nhwc"])
        engine.close()
        engine.close()
    assert FakeLite.made[0].calls == ["load_rknn", "init_runtime", "inference", "release"]
    assert raw.shape == (1, 6, 84)
    at = int(raw[0, 5].argmax())
    np.testing.assert_allclose(raw[0, :4, at], [44, 28, 112, 112], atol=1e-3)
    assert raw[0, 5, at] == pytest.approx(1 / (1 + np.exp(-2)))
    assert np.count_nonzero(raw[0, 4:]) == 1 + (raw[0, 4, at] > 0)


@pytest.mark.parametrize("step", ["load_rknn", "init_runtime"])
def test_what_the_vendor_refuses_is_given_back(step: str, tmp_path: Path) -> None:
    FakeLite.codes = {step: -1}
    with (
        pytest.raises(EngineError, match=r"does not take the engine \(code -1\)"),
        loaded(tmp_path, rknn_file()),
    ):
        pass
    assert FakeLite.made[0].calls[-1] == "release"


def test_a_failed_frame_and_outputs_of_another_head_are_told(tmp_path: Path) -> None:
    batch = np.zeros((1, 3, 64, 64), np.float32)
    with loaded(tmp_path, rknn_file()) as engine:
        FakeLite.outputs = []
        with pytest.raises(EngineError, match="failed on a frame"):
            engine.infer(batch)
        FakeLite.outputs = quiet_head()[::-1]
        with pytest.raises(EngineError, match="are not boxes and 2 classes in turn"):
            engine.infer(batch)


def test_without_rockchip_s_package_the_board_has_no_such_runtime() -> None:
    assert RUNTIMES["rknn"].probe() is None
