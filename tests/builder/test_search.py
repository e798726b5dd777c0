"""The search: nothing is measured twice, whatever dies, and the same is picked."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from kedge_builder.search.measured import Measured, Record
from kedge_builder.search.pareto import GOALS, Limits, pick, too_small
from kedge_builder.search.record import read, section
from kedge_builder.search.space import FLOAT, Point, Space, space_of
from kedge_builder.search.study import SearchOptions
from kedge_shared.device_classes import Budgets, find_class
from kedge_shared.errors import InputError, StorageError
from tests.builder import search_worker
from tests.builder.search_worker import (
    BROKEN,
    BUDGETS,
    SPACE,
    figures,
    inputs,
    measured,
    search,
)
from tests.waiting import wait_for

LIMITS = Limits(BUDGETS, SPACE.baseline)


def test_the_space_of_a_class_has_its_size_and_multiples_of_the_stride_below() -> None:
    space = space_of(find_class("x86-openvino"), pruning_steps=2, precisions=("int8",))
    assert space.input_sizes == (640, 512, 416, 320)
    assert space.baseline == Point(0, 640, "float")
    assert space.anchors() == (Point(0, 640, "float"), Point(0, 640, "int8"))
    assert len(space.points()) == 3 * 4 * 2
    small = space_of(find_class("x86-openvino"), pruning_steps=0, precisions=(), input_size=64)
    assert small.input_sizes == (64, 32)


def test_a_small_space_is_measured_whole_and_once(tmp_path: Path) -> None:
    asked: list[Point] = []

    def measure(point: Point) -> Measured:
        asked.append(point)
        return figures(point)

    found = search(tmp_path, measure)
    assert sorted(asked) == sorted(SPACE.points())
    assert asked[:2] == list(SPACE.anchors())
    assert [each.point for each in found.records] == sorted(SPACE.points())
    broken = next(each for each in found.records if each.point == BROKEN)
    assert (broken.measured, broken.why) == (None, "every score is zero after quantizing")

    again = search(tmp_path, measure)
    assert again == found
    assert len(asked) == len(SPACE.points())


LARGE = Space(
    tuple(range(8)), (640, 512, 416, 320), ("int8", "int8+mixed-1", FLOAT), SPACE.baseline
)


def test_a_large_space_is_searched_within_the_trials_and_finds_more_than_chance(
    tmp_path: Path,
) -> None:
    asked: list[Point] = []

    def measure(point: Point) -> Measured:
        asked.append(point)
        small = replace(point, pruned=0)
        work = 1 - 0.1 * point.pruned
        base = figures(small)
        return replace(
            base, map50_95=base.map50_95 - 0.003 * point.pruned,
            latency_p50_ms=base.latency_p50_ms * work, latency_p95_ms=base.latency_p95_ms * work,
        )  # fmt: skip

    found = search(tmp_path, measure, space=LARGE, trials=24)
    assert len(asked) == len(set(asked)) == len(found.records) == 24
    limits = Limits(BUDGETS, LARGE.baseline)
    best = pick(found.records, "fastest", limits).record.measured
    every = [Record(each, measure(each)) for each in LARGE.points()]
    optimum = pick(every, "fastest", limits).record.measured
    assert best and optimum
    assert best.latency_p50_ms <= 1.25 * optimum.latency_p50_ms


def test_an_interrupted_search_measures_as_many_points_and_none_twice(tmp_path: Path) -> None:
    class Stop(Exception):
        pass

    def run(folder: str, stop_after: int) -> list[Point]:
        asked: list[Point] = []

        def measure(point: Point) -> Measured:
            if len(asked) == stop_after:
                raise Stop
            asked.append(point)
            return (
                figures(replace(point, pruned=point.pruned % 3, input_size=512))
                if (point.pruned % 3 != 2)
                else figures(SPACE.baseline)
            )

        (tmp_path / folder).mkdir(exist_ok=True)
        try:
            search(tmp_path / folder, measure, space=LARGE, trials=14)
        except Stop:
            return asked + run(folder, -1)
        return asked

    whole = run("whole", -1)
    assert len(whole) == 14
    interrupted = run("interrupted", 5)
    assert len(interrupted) == len(set(interrupted)) == 14


def test_other_inputs_are_another_study_and_other_budgets_are_not() -> None:
    one = inputs()
    others = [
        replace(one, weights_sha256="3" * 64),
        replace(one, data_sha256="3" * 64),
        replace(one, tools={"onnxruntime": "1.33"}),
        replace(one, recipe={"seed": "1"}),
        replace(one, space=LARGE),
        replace(one, device_class=replace(one.device_class, threads=2)),
    ]
    assert len({each.study_name for each in (one, *others)}) == 7
    judged_otherwise = replace(one.device_class, budgets=Budgets(latency_p95_ms=1.0))
    assert replace(one, device_class=judged_otherwise).study_name == one.study_name


def _worker(
    cache: Path, log: Path, seconds: float, hang_after: int = 1000, workers: int = 1
) -> subprocess.Popen[bytes]:
    job = (str(cache), str(log), str(seconds), str(hang_after), str(workers))
    return subprocess.Popen(
        [sys.executable, "-m", search_worker.__name__, *job],
        cwd=Path(__file__).parents[2],
    )


def _lines(log: Path, kind: str) -> list[str]:
    text = log.read_text() if log.exists() else ""
    return [line.split()[1] for line in text.splitlines() if line.startswith(kind)]


def test_killed_and_resumed_it_repeats_no_finished_point_and_picks_the_same(
    tmp_path: Path,
) -> None:
    log, cache = tmp_path / "log", tmp_path / "cache"
    cache.mkdir()
    worker = _worker(cache, log, 0, hang_after=5)
    try:
        wait_for(lambda: len(_lines(log, "begin")) == 6)
    finally:
        worker.send_signal(signal.SIGKILL)
        worker.wait()
    finished, begun = _lines(log, "end"), _lines(log, "begin")
    assert len(finished) == 5
    assert len(begun) == 6

    found = search(cache, search_worker.logging_measure(log, 0))
    times = Counter(_lines(log, "begin"))
    assert all(times[each] == 1 for each in finished)
    assert times[begun[-1]] == 2
    assert times.keys() == {each.key for each in SPACE.points()}
    (tmp_path / "whole").mkdir()
    whole = search(tmp_path / "whole", figures)
    assert found.records == whole.records
    for goal in GOALS:
        assert pick(found.records, goal, LIMITS) == pick(whole.records, goal, LIMITS)


def test_two_workers_share_a_study_and_no_point_is_measured_by_both(tmp_path: Path) -> None:
    log = tmp_path / "log"
    workers = [_worker(tmp_path, log, 0.15, workers=2) for _ in range(2)]
    assert [each.wait(240) for each in workers] == [0, 0]
    begun = Counter(_lines(log, "begin"))
    assert set(begun.values()) == {1}
    assert begun.keys() == {each.key for each in SPACE.points()}
    by = {line.split()[2] for line in log.read_text().splitlines() if line.startswith("begin")}
    assert len(by) == 2


def test_a_search_that_fails_leaves_its_point_to_the_next(tmp_path: Path) -> None:
    asked: list[Point] = []

    def failing(point: Point) -> Measured:
        asked.append(point)
        if len(asked) == 4:
            raise StorageError("disk is full")
        return figures(point)

    with pytest.raises(StorageError, match="disk is full"):
        search(tmp_path, failing)
    search(tmp_path, failing)
    assert Counter(asked).most_common(1) == [(asked[3], 2)]
    assert len(asked) == len(SPACE.points()) + 1


def test_the_report_holds_enough_to_pick_again(tmp_path: Path) -> None:
    found = search(tmp_path, figures)
    choice = pick(found.records, "fastest", LIMITS)
    body = json.loads(json.dumps(section(found, choice, "fastest", LIMITS)))
    rows = {each["key"]: each for each in body["trials"]}
    assert body["picked"] == "pruned=1,size=640,precision=int8+mixed-1"
    assert rows[body["picked"]]["front"]
    assert rows[body["picked"]]["feasible"]
    slow = rows["pruned=0,size=640,precision=float"]
    assert (slow["feasible"], slow["front"]) == (False, False)
    assert slow["why"] == "latency p95 100.0 ms, budget 60.0"
    assert rows[BROKEN.key]["why"] == "every score is zero after quantizing"
    records, limits = read(body)
    assert records == found.records
    assert pick(records, "fastest", limits) == choice


@pytest.mark.parametrize(
    ("url", "error", "said"),
    [
        ("not a url", InputError, "no database URL"),
        ("nodb://user:secret@host/name", InputError, "unknown database"),
        ("sqlite:////proc/no/such/file", StorageError, "unable to open database file"),
    ],
)
def test_a_storage_that_cannot_be_used_is_one_line_without_its_password(
    tmp_path: Path, url: str, error: type[Exception], said: str
) -> None:
    from kedge_builder.search import storage

    with storage.quiet(), pytest.raises(error, match=said) as caught:
        storage.open_study(url, "name", heartbeat_seconds=1, stale_seconds=2)
    assert "secret" not in str(caught.value)


def test_fewer_than_twelve_trials_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="11 trials are too few"):
        SearchOptions(cache=tmp_path, trials=11)


def test_a_size_that_is_too_small_is_given_up_for_every_step(tmp_path: Path) -> None:
    """Below 512 pixels nothing is seen any more; a point or two are enough to learn that."""
    space = Space((0, 1, 2, 3), (640, 512, 416, 320), ("int8", FLOAT), Point(0, 640, FLOAT))
    asked: list[Point] = []

    def blind(point: Point) -> Measured:
        asked.append(point)
        accuracy = 0.6 - 0.002 * point.pruned - (0.3 if point.input_size < 512 else 0.0)
        work = point.input_size / 20 / (1 + point.pruned)
        return measured(accuracy, work * (1 if point.precision == FLOAT else 0.6), 1_000_000)

    found = search(tmp_path, blind, space=space, trials=20)
    limits = Limits(BUDGETS, space.baseline)
    assert too_small(found.records, limits) in {320, 416}
    hopeless = [each for each in asked if each.input_size <= 416]
    assert len(hopeless) <= 3, "at most one at 320 and two at 416"
    assert len(asked) == 16 + len(hopeless), "all that is left of the space, each once"
    assert pick(found.records, "fastest", limits).record.point == Point(3, 512, "int8")
