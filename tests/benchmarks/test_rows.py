"""What the benchmarks say of their figures: targets, intervals, peers."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks.builder import read_subject
from benchmarks.common import Row, as_object, as_table
from benchmarks.contest import Entrant, Stopwatch, rows_of, within
from benchmarks.whole_builds import epochs_of
from kedge_builder.measure.engines import EngineFile
from kedge_builder.measure.evaluate import Accuracy, ImageStats, mean_average_precision
from kedge_builder.search.space import Point
from kedge_shared.errors import InputError
from kedge_shared.timing import Latency

IMAGES = 12


def accuracy(missed: int) -> Accuracy:
    """Perfect detections, but for ``missed`` images without any."""
    seen = ImageStats(np.ones((1, 10), bool), np.ones(1, np.float32), np.zeros(1, np.float32),
                      np.zeros(1, np.float32))  # fmt: skip
    blind = ImageStats(np.zeros((0, 10), bool), np.zeros(0, np.float32), np.zeros(0, np.float32),
                       np.zeros(1, np.float32))  # fmt: skip
    stats = (*[seen] * (IMAGES - missed), *[blind] * missed)
    map50, map50_95, per_class = mean_average_precision(stats)
    return Accuracy(map50, map50_95, per_class, stats, finite=True, seen=1)


def entrant(folder: Path, name: str, *, ms: float, missed: int = 0, size: int = 1000) -> Entrant:
    path = folder / name
    path.write_bytes(b"x" * size)
    latency = Latency(ms, ms, ms, 30, (ms,) * 30)
    return Entrant(name, (EngineFile("engine", path),), accuracy(missed), latency, latency)


def find(rows: list[Row], words: str) -> Row:
    (found,) = [each for each in rows if words in each.name]
    return found


def test_a_missed_target_is_said_to_be_missed(tmp_path: Path) -> None:
    every = [entrant(tmp_path, "float", ms=10), entrant(tmp_path, "kedge", ms=8, size=400)]
    rows = rows_of("m", "openvino", every, 0)
    assert find(rows, "engine over float").holds is False  # 1.25, promised are 1.7
    assert find(rows, "bytes saved").holds is False  # 60 %
    assert find(rows, "m: points lost, interval").holds is True
    assert "MISSED" in as_table(rows, "against float")


def test_an_interval_that_holds_the_target_is_undecided() -> None:
    assert within(-0.2, 0.2, 0.3) is True
    assert within(0.4, 0.9, 0.3) is False
    assert within(-0.2, 0.9, 0.3) is None
    row = Row(name="lost", value=0.1, unit="points", target=0.3, interval=(-0.2, 0.9))
    assert "undecided" in as_table([row], "")


def test_the_best_peer_is_the_one_to_beat_and_a_broken_one_is_none(tmp_path: Path) -> None:
    every = [
        entrant(tmp_path, "float", ms=10),
        entrant(tmp_path, "kedge", ms=6, size=200),
        entrant(tmp_path, "sound", ms=5),
        entrant(tmp_path, "blind", ms=1, missed=IMAGES - 1),
    ]
    rows = rows_of("m", "onnxruntime", every, 0)
    assert find(rows, "speed over sound").holds is False
    assert find(rows, "points behind sound").holds is True
    assert not [each for each in rows if each.name.endswith("over blind")]


def test_a_loss_to_a_peer_beyond_noise_is_missed(tmp_path: Path) -> None:
    every = [
        entrant(tmp_path, "float", ms=10),
        entrant(tmp_path, "kedge", ms=5, missed=IMAGES // 2, size=200),
        entrant(tmp_path, "sound", ms=5),
    ]
    rows = rows_of("m", "onnxruntime", every, 0)
    assert find(rows, "points behind sound").holds is False
    assert find(rows, "speed over sound").holds is True
    assert find(rows, "m: points lost, interval").holds is False


def test_json_is_one_object_with_the_promised_keys() -> None:
    rows = [Row(name="a", value=1, unit="x", target=2, holds=False, against=3),
            Row(name="b", value=1, unit="x", interval=(0.5, 2))]  # fmt: skip
    body = json.loads(as_object("a machine", rows))
    assert body["machine"] == "a machine"
    assert body["rows"][0] == {"name": "a", "value": 1.0, "unit": "x", "target": 2.0,
                               "holds": False, "against": 3.0}  # fmt: skip
    assert body["rows"][1]["interval"] == [0.5, 2.0]


def test_the_stopwatch_leaves_the_warm_up_out() -> None:
    class Echo:
        def infer(self, batch: np.ndarray) -> np.ndarray:
            return batch

    watch = Stopwatch(Echo())
    for _ in range(5):
        watch.infer(np.zeros((1, 3, 32, 32), np.float32))
    watch.took = [90.0, 80.0, 1.0, 2.0, 3.0]
    alone = watch.alone(replace(Latency(9, 9, 2, 3), frames_ms=(7.0, 8.0, 9.0)))
    assert alone.frames_ms == (1.0, 2.0, 3.0)
    assert alone.p50 == 2


@pytest.mark.parametrize("given", ["n", "n=a,b", "n=a,b,c", "=a,b,1", "n=a,b,1,2"])
def test_a_model_that_is_none_is_one_line(given: str) -> None:
    with pytest.raises(InputError, match="NAME=WEIGHTS,DATA,SIZE"):
        read_subject(given)


@pytest.mark.parametrize(("pruned", "epochs"), [(0, 0), (2, 18)])
def test_the_unpruned_model_is_trained_as_long_as_the_pick(pruned: int, epochs: int) -> None:
    point = Point(pruned, 320, "int8")
    report = {
        "search": {
            "picked": point.key,
            "trials": [{"key": point.key, "point": asdict(point)}],
            "chain": [{"epochs": 6}, {"epochs": 18}, {"epochs": 24}],
        },
    }
    assert epochs_of(report) == epochs
