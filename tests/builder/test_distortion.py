"""Distortion: zero for equal outputs, more the further an engine is from float."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kedge_builder.measure.distortion import distortion
from kedge_shared.detections import Array


def raw(seed: int = 0, anchors: int = 50, classes: int = 3) -> Array:
    rng = np.random.default_rng(seed)
    boxes = rng.uniform(20, 60, (4, anchors))
    scores = rng.uniform(0, 1, (classes, anchors))
    return np.concatenate([boxes, scores])[None].astype(np.float32)


def rows(*objects: tuple[float, ...]) -> Array:
    return np.array([objects], dtype=np.float32)


APART = rows((0, 0, 10, 10, 0.9, 1), (30, 30, 50, 50, 0.6, 0), (70, 0, 90, 20, 0.3, 2))


def test_equal_outputs_are_not_distorted() -> None:
    assert distortion([raw(1), raw(2)], [raw(1), raw(2)]) == pytest.approx(0, abs=1e-6)
    assert distortion([APART], [APART]) == pytest.approx(0, abs=1e-6)
    assert distortion([], []) == 0


def test_distortion_is_scores_and_boxes_lost() -> None:
    reference = np.array([[[50], [50], [20], [20], [0.5]]], dtype=np.float32)
    dimmer, aside = reference.copy(), reference.copy()
    dimmer[0, 4] = 0.2
    aside[0, 0] = 60  # half of the box over the other: IoU 1/3
    assert distortion([reference], [dimmer]) == pytest.approx(0.3)
    assert distortion([reference], [aside]) == pytest.approx(2 / 3, abs=1e-6)


def test_what_float_scores_higher_weighs_more_and_the_faint_nothing() -> None:
    reference = np.array([[[50, 90, 9], [50] * 3, [20] * 3, [20] * 3, [0.9, 0.1, 0.01]]])
    strong, weak, faint = (reference.astype(np.float32) for _ in range(3))
    strong[0, 4, 0] -= 0.1
    weak[0, 4, 1] -= 0.1
    faint[0, 4, 2] = 0.9
    reference = reference.astype(np.float32)
    assert distortion([reference], [strong]) == pytest.approx(0.09, abs=1e-6)
    assert distortion([reference], [weak]) == pytest.approx(0.01, abs=1e-6)
    assert distortion([reference], [faint]) == 0


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 1000), st.floats(0.02, 0.3), st.floats(1.5, 4))
def test_distortion_grows_with_noise(seed: int, little: float, times: float) -> None:
    reference = raw(seed, anchors=200)
    noise = np.random.default_rng(seed + 1).normal(size=reference.shape).astype(np.float32)
    noise[:, :4] *= 5

    def noisy(much: float) -> float:
        return distortion([reference], [reference + np.float32(much) * noise])

    assert 0 < noisy(little) < noisy(little * times) <= 2 + 4 * times


@pytest.mark.parametrize("junk", [np.nan, np.inf, -np.inf])
def test_an_output_that_is_not_finite_is_as_far_as_can_be(junk: float) -> None:
    broken = raw(2)
    broken[0, 5, 7] = junk
    assert distortion([raw(1), raw(2)], [raw(1), broken]) == 2


def test_rows_of_an_end_to_end_head_may_swap() -> None:
    assert distortion([APART], [APART[:, ::-1]]) == pytest.approx(0, abs=1e-6)
    # The third object lost: its weight of 0.3 of 1.8, twice.
    assert distortion([APART], [APART[:, :2]]) == pytest.approx(2 * 0.3 / 1.8, abs=1e-6)
