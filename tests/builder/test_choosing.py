"""Which engine a class gets: distortion, candidates, float blocks, and the ladder."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest

from kedge_builder.cache import Cache
from kedge_builder.choosing import Chooser, Chosen
from kedge_builder.compress import qat
from kedge_builder.judge.ladder import Rung, aim_for, loses, next_rung, read_rungs
from kedge_builder.measure import evaluate, surveys
from kedge_builder.measure.engines import EngineFile
from kedge_builder.measure.evaluate import (
    Accuracy,
    Drop,
    ImageStats,
    load_accuracy,
    mean_average_precision,
    save_accuracy,
)  # fmt: skip
from kedge_builder.measure.surveys import Survey, Surveyor
from kedge_builder.quantize.candidates import Candidate, choose
from kedge_builder.quantize.mixed import Mixed, Sensitivity, greedy, measure_blocks
from kedge_builder.quantize.plan import Plan
from kedge_builder.quantize.quantizer import Quantizer
from kedge_builder.quantize.ranges import Calibrator
from kedge_builder.quantize.source import Source
from kedge_builder.workshop import Workshop
from kedge_shared.errors import InputError

# -- candidates ---------------------------------------------------------------------------------


def accuracy(levels: list[int]) -> Accuracy:
    """One object an image, found with an IoU that so many of the ten thresholds allow."""
    stats = tuple(
        ImageStats(
            hits=np.arange(10)[None] < level,
            scores=np.array([0.9], dtype=np.float32),
            classes=np.array([0], dtype=np.float32),
            truth=np.array([0], dtype=np.float32),
        )
        for level in levels
    )
    map50, map50_95, per_class = mean_average_precision(stats)
    return Accuracy(map50, map50_95, per_class, stats, finite=True, seen=len(stats))


def candidate(
    levels: list[int], distorted: float, calibrator: Calibrator = "mse", drop: float = 0.0
) -> Candidate:
    survey = Survey(accuracy(levels), distorted)
    return Candidate(Plan(calibrator=calibrator), (), survey, Drop(drop, drop / 2, drop * 2))


def test_a_clear_winner_wins_whatever_its_distortion() -> None:
    good, bad = candidate([9] * 30, 0.9), candidate([4] * 30, 0.001, "minmax")
    for order in ([good, bad], [bad, good]):
        choice = choose(order, seed=0)
        assert choice.taken is good
        assert choice.reason == "most accurate on the select images"


def test_ties_go_to_the_nearest_to_float() -> None:
    first = candidate([9, 7] * 15, 0.02)
    second = candidate([7, 9] * 14 + [7, 7], 0.01, "percentile")
    worse = candidate([1] * 30, 0.0001, "minmax")
    choice = choose([first, second, worse], seed=0)
    assert first.survey.accuracy.map50_95 > second.survey.accuracy.map50_95
    assert choice.taken is second
    assert choice.reason.startswith("nearest to float of the 2 that 30 select images")


def test_the_only_one_is_taken_as_such() -> None:
    only = candidate([5] * 4, 0.1)
    assert choose([only], seed=0).taken is only
    assert choose([only], seed=0).reason == "the only form for this runtime"


# -- float blocks -------------------------------------------------------------------------------


def row(block: str, saved: float, ms: float) -> Sensitivity:
    return Sensitivity(block=block, distortion_saved=saved, points_gained=0.0, ms_added=ms)


@dataclass
class Bench:
    """Distortion falls by a block's share when it is float; the drop is ten times as much."""

    shares: dict[str, float]
    together: dict[tuple[str, ...], float] = field(default_factory=dict)
    asked: list[tuple[str, ...]] = field(default_factory=list)

    def __call__(self, plan: Plan) -> Candidate:
        blocks = plan.float_blocks
        self.asked.append(blocks)
        left = self.together.get(blocks, 0.5 - sum(self.shares[each] for each in blocks))
        return replace(candidate([5] * 3, left, drop=left * 10), plan=plan)


def test_blocks_are_ordered_by_distortion_saved_for_a_millisecond() -> None:
    bench = Bench({"a": 0.04, "b": 0.04, "c": 0.01, "d": 0.03, "e": 0.0})
    costs = {"a": 2.0, "b": 1.0, "c": 0.0, "d": -1.0, "e": 0.1}
    ticks: list[None] = []
    base = bench(Plan(calibrator="mse"))
    found = measure_blocks(
        base, list(bench.shares), bench,
        lambda _, other: costs[other.plan.float_blocks[0]], lambda: ticks.append(None),
    )  # fmt: skip
    # 0.05 ms stand for what timing cannot resolve: d 0.6 a ms, c 0.2, b 0.04, a 0.02, e none.
    assert [each.block for each in found] == ["d", "c", "b", "a", "e"]
    assert found[0].worth == pytest.approx(0.6)
    assert [each.ms_added for each in found] == [0, 0, 1, 2, 0.1]
    assert bench.asked[1:] == [(each,) for each in "abcde"]
    assert len(ticks) == 5


TEN = {f"b{at}": 0.01 for at in range(10)}


def test_it_stops_at_the_aim() -> None:
    bench = Bench(TEN)
    base = bench(Plan())
    found = greedy(base, [row(each, 0.01, 1) for each in TEN], bench, aim=4.8)
    assert found.taken.plan.float_blocks == ("b0", "b1")
    assert bench.asked == [(), ("b0",), ("b0", "b1")]
    assert greedy(base, [row("b0", 1, 1)], bench, aim=5.0) == Mixed(base, (row("b0", 1, 1),), ())


def test_at_most_four_tenths_stay_float() -> None:
    bench = Bench(TEN)
    found = greedy(bench(Plan()), [row(each, 0.01, 1) for each in TEN], bench, aim=0.0)
    assert len(found.taken.plan.float_blocks) == 4
    lone = greedy(bench(Plan()), [row("b0", 0.01, 1)], bench, aim=0.0)
    assert lone.taken.plan.float_blocks == ("b0",)


def test_a_step_that_does_not_help_is_taken_back() -> None:
    bench = Bench(TEN, together={("b0", "b1"): 0.49, ("b0", "b2"): 0.3})
    rows = [row(each, 0.01, 1) for each in TEN]
    found = greedy(bench(Plan()), rows, bench, aim=3.0)
    assert found.taken.plan.float_blocks == ("b0", "b2")
    assert [(each.block, each.kept) for each in found.steps] == [
        ("b0", True), ("b1", False), ("b2", True),
    ]  # fmt: skip


def test_a_block_that_saves_nothing_is_not_tried() -> None:
    bench = Bench(TEN)
    base = bench(Plan())
    found = greedy(base, [row("b0", 0.0, 1), row("b1", -0.1, 1)], bench, aim=0.0)
    assert (found.taken, found.steps) == (base, ())


# -- the ladder ---------------------------------------------------------------------------------

ALL: tuple[Rung, ...] = ("mixed", "qat", "float")


@pytest.mark.parametrize(
    ("allowed", "tried", "drop", "low", "rung"),
    [
        (ALL, (), 0.02, 0.001, "mixed"),
        (ALL, ("mixed",), 0.02, 0.001, "qat"),
        (ALL, ("mixed", "qat"), 0.02, 0.001, "float"),
        (ALL, ALL, 0.02, 0.001, None),
        (("float",), (), 0.02, 0.001, "float"),
        (("float", "qat"), (), 0.02, 0.001, "qat"),
        ((), (), 0.02, 0.001, None),
        (ALL, (), 0.005, 0.001, None),  # the aim is good enough
        (ALL, (), 0.02, 0.0, None),  # the images do not agree that there is a loss
        (ALL, (), 0.02, -0.01, None),
        (ALL, (), -0.01, -0.02, None),
    ],
)
def test_the_next_rung(
    allowed: tuple[Rung, ...], tried: tuple[Rung, ...], drop: float, low: float, rung: Rung | None
) -> None:
    assert next_rung(allowed, tried, drop=drop, low=low, aim=0.005) == rung
    assert loses(drop, low, 0.005) is (drop == 0.02 and low > 0)


@pytest.mark.parametrize(
    ("budget", "aim"),
    [(None, 0.005), (0.02, 0.005), (0.08, 0.02), (0.006, 0.003), (0.0, 0.0), (0.2, 0.05)],
)
def test_the_aim(budget: float | None, aim: float) -> None:
    assert aim_for(budget) == pytest.approx(aim)


def test_rungs_are_read_in_their_own_order() -> None:
    assert read_rungs("float, mixed") == ("mixed", "float")
    assert read_rungs("none") == read_rungs("") == ()
    with pytest.raises(InputError, match="--if-it-loses 'junk' is not known"):
        read_rungs("mixed,junk")


# -- surveys ------------------------------------------------------------------------------------


def same(left: Accuracy, right: Accuracy) -> bool:
    pairs = zip(left.stats, right.stats, strict=True)
    arrays = ("hits", "scores", "classes", "truth")
    return all(
        np.array_equal(getattr(a, n), getattr(b, n)) for a, b in pairs for n in arrays
    ) and replace(left, stats=()) == replace(right, stats=())


def test_accuracy_is_read_as_it_was_written(tmp_path: Path) -> None:
    nothing = ImageStats(
        np.zeros((0, 10), dtype=bool), *(np.zeros(0, dtype=np.float32) for _ in range(3))
    )
    found = accuracy([9, 3, 0, 10])
    found = replace(found, stats=(nothing, *found.stats, nothing), finite=False, seen=17)
    save_accuracy(found, tmp_path / "accuracy.npz")
    again = load_accuracy(tmp_path / "accuracy.npz")
    assert same(again, found)
    assert [len(each.truth) for each in again.stats] == [0, 1, 1, 1, 1, 0]


@pytest.fixture
def surveyor(shop: Workshop, source: Source, tmp_path: Path) -> Callable[[], Surveyor]:
    return lambda: Surveyor(
        shop.options.classes[0], source, shop.data, Cache(tmp_path / "surveys"), shop.progress
    )


def test_a_cached_survey_equals_a_fresh_one(
    surveyor: Callable[[], Surveyor], shop: Workshop, source: Source,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    quantizer = shop.quantizer(shop.options.classes[0], source)
    files = quantizer.make(Plan(calibrator="minmax"))
    fresh = surveyor().survey("minmax", files, "select")
    floats = surveyor().float_survey("select")
    assert floats.distortion == pytest.approx(0, abs=1e-6)
    assert 0 < fresh.distortion < 0.5
    assert len(fresh.accuracy.stats) == 10
    assert surveyor().survey("minmax", files, "gate").accuracy.stats[0].truth is not None
    monkeypatch.setattr(surveys, "evaluate", lambda *_: pytest.fail("measured again"))
    again = surveyor().survey("another name", files, "select")
    assert again.distortion == fresh.distortion
    assert same(again.accuracy, fresh.accuracy)
    assert same(surveyor().float_survey("select").accuracy, floats.accuracy)


# -- climbing -----------------------------------------------------------------------------------


@dataclass
class World:
    """Engines are made and measured by the book: kind → thresholds of ten that they pass."""

    source: Source
    adapted: Source
    levels: dict[str, int]
    made: list[str] = field(default_factory=list)

    def make(self, quantizer: Quantizer, plan: Plan) -> tuple[EngineFile, ...]:
        kind = "mixed" if plan.float_blocks else plan.precision
        kind = kind if quantizer.source is self.source else "qat"
        self.made.append(kind)
        return (EngineFile("engine", Path(f"{kind} {plan.name}")),)

    def survey(self, _: Surveyor, __: str, files: tuple[EngineFile, ...], split: str) -> Survey:
        assert split == "select"
        level = self.levels.get(files[0].path.name.split()[0], 10)
        return Survey(accuracy([level] * 8), (10 - level) / 100)

    def export(
        self, _: Workshop, size: int, trained: object = None, *, opset: int | None = None
    ) -> Source:
        assert (size, opset) == (self.source.given.height, None)
        return self.source if trained is None else self.adapted


Climb = Callable[..., tuple[Chosen, World]]


@pytest.fixture
def climb(shop: Workshop, source: Source, monkeypatch: pytest.MonkeyPatch) -> Climb:
    few = replace(source)
    few.__dict__["blocks"] = source.blocks[:3]

    def run(rungs: tuple[Rung, ...], **levels: int) -> tuple[Chosen, World]:
        world = World(few, replace(few), levels)
        monkeypatch.setattr(evaluate, "_RESAMPLES", 20)
        monkeypatch.setattr(Quantizer, "make", lambda *a: world.make(*a))  # noqa: PLW0108 - becomes a method
        monkeypatch.setattr(Surveyor, "survey", lambda *a: world.survey(*a))  # noqa: PLW0108 - becomes a method
        monkeypatch.setattr(Workshop, "source", lambda *a, **k: world.export(*a, **k))  # noqa: PLW0108 - becomes a method
        monkeypatch.setattr(Chooser, "_added_ms", lambda *_: 1.0)
        monkeypatch.setattr(qat, "adapt", lambda trained, *_: replace(trained, sha256="qat"))
        asked = replace(shop, options=replace(shop.options, rungs=rungs))
        chooser = Chooser(asked, shop.options.classes[0], few, shop.trained, asked.options.rungs)
        return chooser.choose(), world

    return run


#: Thresholds of ten that each kind passes; float passes all.
STEPS = {"int8": 5, "mixed": 6, "qat": 7}


@pytest.mark.parametrize(
    ("allowed", "levels", "climbed", "said"),
    [
        (ALL, STEPS, ALL, "so it stays float"),
        (ALL, {**STEPS, "qat": 10}, ("mixed", "qat"), "the weights were trained"),
        (ALL, {**STEPS, "mixed": 10}, ("mixed",), "lose most for the time they save"),
        (ALL, {"int8": 10}, (), "cannot tell apart"),
        ((), STEPS, (), "cannot tell apart"),
        (("mixed",), STEPS, ("mixed",), "lose most for the time they save"),
        (("float",), STEPS, ("float",), "so it stays float"),
        (("mixed", "qat"), {**STEPS, "qat": 3}, ("mixed", "qat"), "lose most for the time"),
        (("qat",), {**STEPS, "qat": 3}, ("qat",), "cannot tell apart"),
    ],
)
def test_a_class_climbs_in_order_and_only_as_allowed(
    climb: Climb, allowed: tuple[Rung, ...], levels: dict[str, int], climbed: tuple[Rung, ...],
    said: str,
) -> None:  # fmt: skip
    chosen, world = climb(allowed, **levels)
    assert chosen.rungs == climbed
    assert said in chosen.reason
    kinds = {"int8", *climbed}
    assert set(world.made) == kinds
    assert world.made[:4] == ["int8"] * 4
    firsts = [world.made.index(each) for each in ("int8", *climbed)]
    assert firsts == sorted(firsts)
    best = max(levels.get(each, 10) for each in kinds)
    assert chosen.candidate.survey.accuracy.map50_95 == accuracy([best] * 8).map50_95
    trained = chosen.candidate.files[0].path.name.startswith("qat")
    assert chosen.source is (world.adapted if trained else world.source)
    assert (chosen.mixed is not None) is ("mixed" in climbed)
    assert len(chosen.tried) == len({each.files for each in chosen.tried})


def test_what_is_adapted_is_the_plan_without_its_float_blocks(climb: Climb) -> None:
    chosen, _ = climb(("mixed", "qat"), **{**STEPS, "qat": 10})
    assert chosen.candidate.plan.float_blocks == ()
    assert chosen.mixed is not None
    assert chosen.mixed.taken.plan.float_blocks
    assert chosen.candidate.plan.name.startswith("weights trained, ")
    assert [each.plan.trained for each in chosen.tried].count(True) >= 1
    assert not chosen.mixed.taken.plan.trained
