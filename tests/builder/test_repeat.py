"""Builds again: what was done is not done twice, and the search picks what it picked before."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from kedge_builder import choosing, tune
from kedge_builder.cache import Cache
from kedge_builder.choosing import Chooser
from kedge_builder.measure import evaluate, surveys
from kedge_builder.models import export
from kedge_builder.quantize import quantizer
from kedge_builder.quantize.mixed import Mixed
from kedge_builder.quantize.plan import Plan
from kedge_builder.quantize.source import Source
from kedge_builder.recipe import TuneOptions
from kedge_builder.workshop import Workshop
from kedge_shared.ids import sha256_hex
from tests.conftest import Builder

Counts = Callable[[], Counter[str]]
Step = Callable[..., Any]


@pytest.fixture
def counts(monkeypatch: pytest.MonkeyPatch) -> Counts:
    """Returns how often a step was done since the last call."""
    seen: Counter[str] = Counter()

    def watch(owner: Any, name: str, step: str) -> None:
        real = getattr(owner, name)

        def counted(*args: Any, **more: Any) -> Any:
            seen[step] += 1
            return real(*args, **more)

        monkeypatch.setattr(owner, name, counted)

    monkeypatch.setattr(evaluate, "_RESAMPLES", 20)  # nothing here rests on the interval
    watch(export, "to_onnx", "export")
    watch(quantizer, "observe", "observe")
    watch(quantizer.qdq, "quantize", "quantize")
    watch(quantizer, "refit_engine", "refit")
    watch(surveys, "evaluate", "survey")
    watch(tune.Tuner, "_measure", "point")

    def since() -> Counter[str]:
        found = Counter(seen)
        seen.clear()
        return found

    return since


def engine(result: Any) -> str:
    return sha256_hex((result.folder / "model.onnx").read_bytes())


def test_a_repeated_build_does_no_step_again_and_other_inputs_do(
    build: Builder, counts: Counts, tmp_path: Path
) -> None:
    common = {
        "cache": tmp_path / "cache", "images": 12, "calibration_images": 16, "rungs": (),
        "latency_seconds": 0.1,
    }  # fmt: skip
    (first,) = build("2.0", **common)
    done = counts()
    # Four calibrators, the best of them refitted and float on the images that choose; the chosen
    # and float on the verdict's.
    assert done == {"export": 1, "observe": 1, "quantize": 4, "refit": 1, "survey": 8}
    (again,) = build("2.0", **common)
    assert counts() == {}
    assert engine(again) == engine(first)
    for name in ("float", "built"):
        for figure in ("map50", "map50_95", "size_bytes"):
            assert again.report[name][figure] == first.report[name][figure]
    (other,) = build("2.0", **common | {"seed": 1})
    assert counts() == {"observe": 1, "quantize": 4, "refit": 1, "survey": 8}
    assert engine(other) != engine(first)


def test_a_search_takes_the_same_point_again_and_measures_nothing(
    build: Builder, counts: Counts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tune, "_POINT_SECONDS", 0.1)
    common = {
        "cache": tmp_path / "cache", "images": 12, "calibration_images": 16, "rungs": (),
        "latency_seconds": 0.1, "tune": TuneOptions(goal="smallest", trials=12),
        "overrides": {"speed": "noise", "undecided": "few images", "accuracy_drop": "a trial"},
    }  # fmt: skip
    (first,) = build("2.1", **common)
    done = counts()
    assert (done["point"], done["export"]) == (8, 4)
    (again,) = build("2.1", **common)
    assert counts() == {}
    found = [json.loads((each.folder / "report.json").read_text())["search"]
             for each in (first, again)]  # fmt: skip
    assert found[0]["picked"] == found[1]["picked"]
    assert found[0]["trials"] == found[1]["trials"]
    assert engine(again) == engine(first)
    points = {each["key"] for each in found[0]["trials"]}
    assert points == {
        f"pruned=0,size={size},precision={precision}"
        for size in (160, 128, 96, 64) for precision in ("int8", "float")
    }  # fmt: skip
    assert found[0]["picked"].endswith("int8")
    assert first.decision.verdict in {"pass", "overridden"}


def test_sensitivity_that_was_interrupted_goes_on_where_it_stopped(
    shop: Workshop, source: Source, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Ctrl-C in the middle of the third block: what is whole is not made or measured again."""
    few = replace(source)
    few.__dict__["blocks"] = source.blocks[:4]
    fresh = replace(shop, cache=Cache(tmp_path / "cache"))
    done: list[str] = []
    real = quantizer.qdq.quantize, surveys.evaluate, Chooser._difference_ms

    def watched(step: str, does: Step, stop_at: int | None) -> Step:
        def call(*args: Any, **more: Any) -> Any:
            done.append(step)
            if stop_at == done.count(step):
                raise KeyboardInterrupt
            return does(*args, **more)

        return call

    def run(stop_at: int | None) -> Mixed:
        done.clear()
        monkeypatch.setattr(quantizer.qdq, "quantize", watched("make", real[0], stop_at))
        monkeypatch.setattr(surveys, "evaluate", watched("measure", real[1], None))
        monkeypatch.setattr(Chooser, "_difference_ms", watched("time", real[2], None))
        chooser = Chooser(fresh, fresh.options.classes[0], few, fresh.trained, ())
        base = chooser._try(Plan(calibrator="minmax"))
        return chooser._mix(base, aim=-1.0)

    monkeypatch.setattr(evaluate, "_RESAMPLES", 20)
    monkeypatch.setattr(choosing, "_BLOCK_SECONDS", 0.05)
    with pytest.raises(KeyboardInterrupt):
        run(stop_at=4)  # the plain engine, two blocks, and the third is cut off
    assert (done.count("make"), done.count("time")) == (4, 2)
    resumed = run(stop_at=None)
    steps = len(resumed.steps) - 1  # the first step is a block alone, measured already
    assert (done.count("make"), done.count("time")) == (2 + steps, 2)
    assert done.count("measure") == done.count("make")
    again = run(stop_at=None)
    assert done == []
    assert (again.sensitivity, again.steps) == (resumed.sensitivity, resumed.steps)
