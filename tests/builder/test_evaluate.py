"""mAP and its interval on cases that can be counted by hand."""

from __future__ import annotations

import numpy as np
import pytest

from kedge_builder.measure.evaluate import (
    Accuracy,
    drop_interval,
    image_stats,
    mean_average_precision,
)

BOX = [10.0, 10, 30, 30]


def found(*rows: list[float]) -> np.ndarray:
    return np.array(rows, dtype=np.float32).reshape(-1, 6)


def truth(*rows: list[float]) -> np.ndarray:
    return np.array(rows, dtype=np.float32).reshape(-1, 5)


def test_a_perfect_detection_hits_at_every_threshold() -> None:
    stats = image_stats(found([*BOX, 0.9, 1]), truth([1, *BOX]))
    assert stats.hits.all()
    assert mean_average_precision([stats])[1] == pytest.approx(0.995, abs=0.001)


def test_the_class_must_be_right() -> None:
    assert not image_stats(found([*BOX, 0.9, 0]), truth([1, *BOX])).hits.any()


def test_a_label_is_taken_once() -> None:
    stats = image_stats(found([*BOX, 0.9, 1], [11, 11, 31, 31, 0.8, 1]), truth([1, *BOX]))
    assert stats.hits[:, 0].tolist() == [True, False]


def test_the_more_confident_detection_takes_the_label() -> None:
    # The second overlaps more; COCO still gives the label to the first.
    stats = image_stats(found([11, 11, 31, 31, 0.9, 1], [*BOX, 0.8, 1]), truth([1, *BOX]))
    assert stats.hits[:, 0].tolist() == [True, False]


def test_a_detection_takes_the_free_label_that_it_overlaps_most() -> None:
    near = [16.0, 10, 36, 30]
    stats = image_stats(
        found([*BOX, 0.9, 1], [12, 10, 32, 30, 0.8, 1]), truth([1, *near], [1, *BOX])
    )
    assert stats.hits[:, 0].tolist() == [True, True]


def test_overlap_decides_the_threshold() -> None:
    # 20 x 20 against 20 x 15 inside of it: IoU 0.75, six of ten thresholds (0.50 … 0.75).
    stats = image_stats(found([10, 10, 30, 25, 0.9, 1]), truth([1, *BOX]))
    assert stats.hits[0].sum() in {5, 6}
    assert stats.hits[0, :5].all()
    assert not stats.hits[0, 6:].any()


def test_nothing_found_is_zero() -> None:
    stats = image_stats(found(), truth([1, *BOX]))
    assert mean_average_precision([stats])[:2] == (0.0, 0.0)


def accuracy(right: list[bool]) -> Accuracy:
    box = [50.0, 50, 60, 60]
    scores = np.random.default_rng(3).uniform(0.3, 0.9, len(right))
    stats = tuple(
        image_stats(found([*(BOX if each else box), score, 1]), truth([1, *BOX]))
        for each, score in zip(right, scores, strict=True)
    )
    map50, map50_95, per_class = mean_average_precision(stats)
    return Accuracy(map50, map50_95, per_class, stats, True, len(right))


def test_the_interval_holds_no_drop_when_both_are_the_same() -> None:
    same = accuracy([True] * 20 + [False] * 10)
    drop = drop_interval(same, same, seed=0)
    assert (drop.estimate, drop.low, drop.high) == (0, 0, 0)


def test_the_interval_excludes_zero_when_one_is_clearly_worse() -> None:
    drop = drop_interval(accuracy([True] * 60), accuracy([True] * 30 + [False] * 30), seed=0)
    assert drop.low > 0.1
    assert drop.low <= drop.estimate <= drop.high
