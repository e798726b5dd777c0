"""From activations to ranges: what was counted, and which range comes of it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from kedge_builder.quantize import observe as module
from kedge_builder.quantize.observe import BINS, Histogram, Observations, observe
from kedge_builder.quantize.ranges import CALIBRATORS, LEVELS, SILU_FLOOR, Calibrator, span
from kedge_shared.detections import Array

RNG = np.random.default_rng(4)


def histogram(values: Array | list[float], reach: float | None = None) -> Histogram:
    found = Histogram.empty()
    if reach:
        found.reach = reach
    each = np.asarray(values, dtype=np.float32)
    found.add(each, float(each.min()), float(each.max()))
    return found


# -- counting -----------------------------------------------------------------------------------


def test_values_are_counted_in_their_bins() -> None:
    found = histogram([-4.0, -0.001, 0.001, 3.999, 4.0])
    assert (found.low, found.high, found.reach) == (-4.0, 4.0, 4.0)
    assert {int(at): int(found.counts[at]) for at in np.flatnonzero(found.counts)} == {
        0: 1, BINS // 2 - 1: 1, BINS // 2: 1, BINS - 1: 2,
    }  # fmt: skip
    assert found.centres[[0, BINS - 1]] == pytest.approx([-4 + 4 / BINS, 4 - 4 / BINS])


def test_a_value_outside_doubles_the_reach_and_keeps_the_counts() -> None:
    first, second = RNG.normal(size=5000), RNG.normal(scale=3, size=5000)
    found = histogram(first)
    reach = found.reach
    each = second.astype(np.float32)
    found.add(each, float(each.min()), float(each.max()))
    assert found.reach in {reach * 2, reach * 4, reach * 8}
    every = np.concatenate([first, second]).astype(np.float32)
    expected, _ = np.histogram(every, BINS, (-found.reach, found.reach))
    assert found.counts.sum() == 10_000
    # Float32 puts a value on a border to either side of it.
    assert np.abs(np.cumsum(found.counts) - np.cumsum(expected)).max() <= 5
    assert (found.low, found.high) == (every.min(), every.max())


def test_extremes_that_were_not_counted_are_in_the_range() -> None:
    found = Histogram.empty()
    found.add(np.zeros(3, dtype=np.float32), -1.0, 7.0)
    assert (found.low, found.high, found.reach) == (-1.0, 7.0, 7.0)


# -- a pass over a graph ------------------------------------------------------------------------


def tiny() -> onnx.ModelProto:
    weight = numpy_helper.from_array(RNG.normal(size=(4, 3, 1, 1)).astype(np.float32), "w")
    graph = helper.make_graph(
        [
            helper.make_node("Conv", ["images", "w"], ["y"], name="first"),
            helper.make_node("Relu", ["y"], ["z"], name="relu"),
            helper.make_node("Conv", ["z", "v"], ["output0"], name="second"),
        ],
        "tiny",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, [1, 3, 8, 8])],
        [helper.make_tensor_value_info("output0", TensorProto.FLOAT, [1, 2, 8, 8])],
        [weight, numpy_helper.from_array(np.ones((2, 4, 1, 1), dtype=np.float32), "v")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


_GRAPH = tiny()
BATCHES = [RNG.normal(scale=1 + at, size=(1, 3, 8, 8)).astype(np.float32) for at in range(3)]


@pytest.fixture(scope="module")
def seen() -> Observations:
    ticks: list[None] = []
    found = observe(_GRAPH, BATCHES, lambda: ticks.append(None), threads=1)
    assert len(ticks) == found.images == 3
    return found


def test_a_pass_sees_every_tensor_as_numpy_does(seen: Observations) -> None:
    weight = numpy_helper.to_array(_GRAPH.graph.initializer[0])
    images = np.concatenate(BATCHES)
    first = np.einsum("oi,nihw->nohw", weight[:, :, 0, 0], images)
    rectified = np.maximum(first, 0)
    last = np.repeat(rectified.sum(axis=1, keepdims=True), 2, axis=1)
    expected = {"images": images, "y": first, "z": rectified, "output0": last}
    assert seen.histograms.keys() == expected.keys()
    for name, values in expected.items():
        each = seen.histograms[name]
        assert (each.low, each.high) == pytest.approx((values.min(), values.max()), rel=1e-5)
        counted = np.concatenate([v.ravel()[:: module._STRIDE] for v in values])
        assert each.counts.sum() == len(counted)
        mean = float((each.centres * each.counts).sum() / each.counts.sum())
        assert mean == pytest.approx(float(counted.mean()), abs=2 * each.reach / BINS)
    assert seen.means.keys() == {"images", "z"}
    assert seen.means["images"] == pytest.approx(images.mean(axis=(0, 2, 3)), abs=1e-5)
    assert seen.means["z"] == pytest.approx(rectified.mean(axis=(0, 2, 3)), abs=1e-5)


def test_observations_are_read_as_they_were_written(seen: Observations, tmp_path: Path) -> None:
    seen.save(tmp_path / "seen.npz")
    again = Observations.load(tmp_path / "seen.npz")
    assert again.images == seen.images
    assert again.histograms.keys() == seen.histograms.keys()
    for name, each in seen.histograms.items():
        other = again.histograms[name]
        assert (other.low, other.high, other.reach) == (each.low, each.high, each.reach)
        assert (other.counts == each.counts).all()
    assert {n: m.tolist() for n, m in again.means.items()} == {
        n: m.tolist() for n, m in seen.means.items()
    }


# -- ranges -------------------------------------------------------------------------------------

#: 99,999 values up to 1 and one far off.
LONE = np.append(np.linspace(0, 1, 99_999), 16.0)
#: Both sides, more above.
BOTH = np.concatenate([np.linspace(-1, 3, 9_998), [-8.0, 8.0]])


@pytest.mark.parametrize(
    ("values", "calibrator", "expected"),
    [
        (LONE, "minmax", (0, 16)),
        (LONE, "percentile", (0, 1)),
        (BOTH, "minmax", (-8, 8)),
        (BOTH, "percentile", (-8, 8)),
        (np.repeat(BOTH[:-2], 11), "percentile", (-1, 3)),
        (np.append(np.repeat(BOTH[:-2], 11), [-8.0, 8.0]), "percentile", (-1, 3)),
    ],
)
def test_ranges_of_distributions_known_by_hand(
    values: Array, calibrator: Calibrator, expected: tuple[float, float]
) -> None:
    found = span(histogram(values), calibrator)
    assert found == pytest.approx(expected, abs=0.01)


def test_the_end_that_costs_least() -> None:
    """A step of high / 255 over 100,000 values against the one that is clipped, on a 2 % grid.

    100,000 (16 f / 255)² / 12 + (16 - 16 f)² is least at f = 0.886.
    """
    assert span(histogram(LONE), "mse") == (0, pytest.approx(0.88 * 16))
    assert span(histogram(LONE * -1), "mse") == (pytest.approx(-0.88 * 16), 0)
    # Two hundred as far off are worth every step.
    many = np.concatenate([LONE, np.full(199, 16.0)])
    assert span(histogram(many), "mse") == (0, 16)


def test_entropy_clips_what_it_cannot_tell_apart_anyway() -> None:
    normal = RNG.standard_normal(200_000)
    far = np.append(normal, [-40.0, 40.0])
    low, high = span(histogram(far), "entropy")
    assert (low, high) == pytest.approx((-12.8, 12.8))
    assert span(histogram(np.linspace(0, 4, 50_000)), "entropy")[1] > 3.9


def test_mse_clips_an_outlier_where_that_pays_and_not_where_it_does_not() -> None:
    many = np.append(np.repeat(np.linspace(0, 1, 999), 1000), 2.5)
    assert span(histogram(many), "mse")[1] < 1.2
    few = np.append(np.linspace(0, 1, 999), 2.5)
    assert span(histogram(few), "mse")[1] == pytest.approx(2.5, abs=0.08)


@pytest.mark.parametrize("calibrator", CALIBRATORS)
def test_zero_is_always_inside(calibrator: Calibrator) -> None:
    above, below = np.linspace(3, 5, 2000), np.linspace(-5, -3, 2000)
    assert span(histogram(above), calibrator)[0] == 0
    assert span(histogram(below), calibrator)[1] == 0
    assert span(histogram([2.0, 2.0]), calibrator) == (0, 2)
    assert span(histogram([-2.0]), calibrator) == (-2, 0)
    assert span(histogram([0.0]), calibrator) == (0, 0)


@pytest.mark.parametrize("calibrator", CALIBRATORS)
def test_no_step_is_spent_where_silu_answers_zero(calibrator: Calibrator) -> None:
    values = np.concatenate([np.linspace(-40, -8, 4000), np.linspace(-4, 6, 4000)])
    low, high = span(histogram(values), calibrator, feeds_silu=True)
    assert SILU_FLOOR <= low <= -4
    if calibrator in {"minmax", "percentile"}:
        assert low == SILU_FLOOR
    assert high == pytest.approx(6, abs=0.1)
    assert span(histogram(values), calibrator)[0] < -11
    shallow = span(histogram(np.linspace(-2, 6, 4000)), calibrator, feeds_silu=True)
    assert -2.01 < shallow[0] <= 0


def test_in_front_of_a_silu_errors_count_behind_it() -> None:
    """Behind it -7.9 and -7.3 are the same, so the steps may be finer."""
    values = np.concatenate([np.linspace(-7.9, -4, 30_000), np.linspace(-1, 1, 10_000)])
    assert span(histogram(values), "mse", feeds_silu=True)[0] > -7.5
    assert span(histogram(values), "mse")[0] < -7.8


def error(values: Array, low: float, high: float) -> float:
    step = (high - low) / LEVELS
    rounded = np.clip(np.round((values - low) / step), 0, LEVELS) * step + low
    return float(((values - rounded) ** 2).sum())


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000), st.floats(0.3, 4), st.floats(-3, 3), st.floats(1, 30))
@example(0, 4.0, 3.0, 1.0)
def test_mse_never_errs_more_than_minmax(
    seed: int, tail: float, shift: float, scale: float
) -> None:
    rng = np.random.default_rng(seed)
    values = (rng.standard_normal(3000) ** 3 * tail + shift) * scale
    found = histogram(values)
    centres = np.repeat(found.centres, found.counts)
    least = error(centres, *span(found, "mse"))
    assert least <= error(centres, *span(found, "minmax")) * (1 + 1e-9)
