"""``kedge bench``: builds beside each other on one board."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from kedge_agent.bench import board
from kedge_agent.bench.board_cli import bench
from kedge_shared import wire
from kedge_shared.device_classes import RuntimeRange
from kedge_shared.errors import InputError
from kedge_shared.ids import sha256_hex
from kedge_shared.manifest import FileRef, InputSpec, OutputSpec
from kedge_shared.timing import Latency
from tests.shared.samples import manifest
from tests.sim.onnx_engine import SIZE, tiny_onnx


def build(folder: Path, runtime: str = "onnxruntime", versions: str = ">=1,<9999") -> Path:
    folder.mkdir()
    data = tiny_onnx()
    (folder / "model.onnx").write_bytes(data)
    file = FileRef(role="engine", name="model.onnx", sha256=sha256_hex(data), length=len(data))
    given = manifest()
    made = replace(
        given, runtime=RuntimeRange(name=runtime, range=versions),
        files=(file, *(each for each in given.files if each.role == "golden-references")),
        input=InputSpec(height=SIZE, width=SIZE), plans=(),
        output=OutputSpec(head="yolo-v8", classes=("a", "b")),
    )  # fmt: skip
    (folder / "manifest.json").write_bytes(wire.encode_pretty(made))
    return folder


def latency(*frames: float) -> Latency:
    p50, p95 = np.quantile(frames, (0.5, 0.95))
    return Latency(p50=float(p50), p95=float(p95), engine_p50=1, rounds=len(frames),
                   frames_ms=frames)  # fmt: skip


NAMES = [("a", "onnxruntime 1"), ("b", "ncnn 1")]


def test_the_quickest_is_first_and_the_others_are_set_against_it() -> None:
    rows = board.rank(NAMES, [latency(*[20.0] * 30), latency(*[10.0] * 30)])
    assert [(each.build, each.slower) for each in rows] == [("b", 1), ("a", 2)]
    assert board.verdict(rows) == "b (ncnn 1) is the quickest"


def test_what_cannot_be_told_apart_is_said_to_be_undecided() -> None:
    rng = np.random.default_rng(0)
    frames = rng.normal(10, 2, (2, 40))
    rows = board.rank(NAMES, [latency(*frames[0]), latency(*frames[1])])
    assert rows[1].low <= 1 <= rows[1].high
    assert board.verdict(rows).startswith("undecided: ")


def test_builds_are_measured_and_what_is_not_here_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("openvino")
    folders = [
        build(tmp_path / "ort"), build(tmp_path / "vino", "openvino", ">=2025"),
        build(tmp_path / "npu", "rknn", ">=2.3"), build(tmp_path / "old", versions=">=1,<1.1"),
    ]  # fmt: skip
    found = board.measure(folders, board.noise((40, 60)), threads=1, seconds=0.1)
    assert {Path(each.build).name for each in found.standings} == {"ort", "vino"}
    assert {Path(name).name: why for name, why in found.skipped.items()}.keys() == {"npu", "old"}
    assert "runtime rknn is not on this board" in found.skipped[str(folders[2])]
    assert "is outside >=1,<1.1" in found.skipped[str(folders[3])]
    bench(builds=folders[:1], frames=None, threads=1, seconds=1, as_json=True)
    told = json.loads(capsys.readouterr().out)
    assert told["verdict"].endswith("ort is the only build that runs here")
    assert told["standings"][0]["p50_ms"] > 0


def test_an_altered_file_and_a_folder_without_build_are_refused(tmp_path: Path) -> None:
    folder = build(tmp_path / "ort")
    (folder / "model.onnx").write_bytes(tiny_onnx(seed=1))
    with pytest.raises(InputError, match="is not what its manifest names"):
        board.measure([folder], board.noise((40, 60)), threads=1, seconds=0.1)
    with pytest.raises(InputError, match="none of the builds runs on this board"):
        board.measure([build(tmp_path / "npu", "rknn")], board.noise((4, 6)), threads=1, seconds=1)
    with pytest.raises(InputError, match="manifest"):
        board.measure([tmp_path], board.noise((4, 6)), threads=1, seconds=1)
