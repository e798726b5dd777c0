"""Scores, histograms and the decoder: the arithmetic behind every verdict."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kedge_shared import histogram
from kedge_shared.detections import Array, compare, empty, iou_matrix, label_score, match
from kedge_shared.golden import label_array, read_references, write_references
from kedge_shared.manifest import InputSpec, OutputSpec
from kedge_shared.vision import Preparer, all_finite, decode, prepare
from tests.shared.samples import policy


def boxes(*rows: tuple[float, ...]) -> Array:
    return np.asarray(rows, dtype=np.float32).reshape(-1, 6)


ONE = boxes((0, 0, 10, 10, 0.9, 0))


def test_overlap_by_hand() -> None:
    half = boxes((0, 0, 10, 5, 0.9, 0))
    beside = boxes((10, 0, 20, 10, 0.9, 0))
    assert iou_matrix(ONE, ONE)[0, 0] == pytest.approx(1)
    assert iou_matrix(ONE, half)[0, 0] == pytest.approx(0.5)
    assert iou_matrix(ONE, beside)[0, 0] == 0
    assert iou_matrix(ONE, boxes((5, 5, 5, 5, 1, 0)))[0, 0] == 0


def test_classes_are_never_mixed() -> None:
    other = boxes((0, 0, 10, 10, 0.9, 1))
    assert match(ONE, other, 0.5) == []
    assert label_score([other], [ONE], confidence=0.25) == 0


def test_a_box_is_matched_once() -> None:
    twice = np.concatenate([ONE, ONE])
    score = compare(ONE, twice, iou=0.5)
    assert (score.hits, score.missed, score.extra) == (1, 0, 1)
    score = compare(twice, ONE, iou=0.5)
    assert (score.hits, score.missed, score.extra) == (1, 1, 0)


def test_the_best_overlap_wins() -> None:
    near = boxes((0, 0, 10, 9, 0.5, 0), (0, 0, 10, 10, 0.4, 0))
    assert match(ONE, near, 0.5) == [(0, 1)]


def test_a_changed_confidence_is_a_miss_where_it_matters() -> None:
    weaker = boxes((0, 0, 10, 10, 0.8, 0))
    assert compare(ONE, weaker, iou=0.9, confidence=0.05).hits == 0
    assert compare(ONE, weaker, iou=0.9, confidence=0.1).hits == 1
    assert compare(ONE, weaker, iou=0.9).hits == 1


def test_label_score_by_hand() -> None:
    found = [boxes((0, 0, 10, 10, 0.9, 0), (50, 50, 60, 60, 0.9, 0)), empty()]
    labels = [ONE, ONE]
    # one hit, one missed, one extra: 2 / (2 + 1 + 1)
    assert label_score(found, labels, confidence=0.25) == pytest.approx(0.5)
    assert label_score(found, labels, confidence=0.95) == 0
    assert label_score([empty()], [empty()], confidence=0.25) is None


def test_a_label_of_an_unknown_class_can_only_be_missed() -> None:
    labels = label_array(policy().golden[0], ("square",))
    assert labels[0, 5] == -1
    assert label_array(policy().golden[0], ("square", "circle"))[0, 5] == 1


def test_references_round_trip() -> None:
    data = write_references({"f" * 64: ONE, "e" * 64: empty()})
    again = read_references(data)
    assert again["e" * 64].shape == (0, 6)
    np.testing.assert_allclose(again["f" * 64], ONE, atol=0.01)


@given(st.lists(st.floats(0.001, 1e5), min_size=1, max_size=300), st.floats(0.01, 1))
def test_quantiles_are_within_a_bucket(values: list[float], share: float) -> None:
    got = histogram.of(values).quantile(share)
    exact = float(np.quantile(values, share, method="inverted_cdf"))
    assert got == pytest.approx(exact, rel=0.1)


@given(st.lists(st.lists(st.floats(0.001, 1e5), max_size=30), max_size=6))
def test_merging_loses_nothing(parts: list[list[float]]) -> None:
    merged = histogram.merge(histogram.of(each) for each in parts)
    whole = histogram.of(value for each in parts for value in each)
    assert merged.counts == whole.counts
    assert merged.total == pytest.approx(whole.total)


def test_an_empty_histogram_has_no_quantile() -> None:
    assert histogram.Histogram().quantile(0.95) is None


@pytest.mark.parametrize(("width", "height"), [(160, 160), (320, 240), (90, 160), (101, 333)])
def test_a_box_finds_its_way_back_to_the_frame(width: int, height: int) -> None:
    spec = InputSpec(height=160, width=160)
    batch, place = prepare(np.zeros((height, width, 3), dtype=np.uint8), spec)
    assert batch.shape == (1, 3, 160, 160)
    truth = np.array([0.2 * width, 0.3 * height, 0.6 * width, 0.8 * height])
    x1, x2 = truth[[0, 2]] * place.scale_x + place.left
    y1, y2 = truth[[1, 3]] * place.scale_y + place.top
    raw = np.zeros((1, 6, 2), dtype=np.float32)
    raw[0, :4, 0] = (x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1
    raw[0, 5, 0] = 0.8
    found = decode(raw, place, OutputSpec(head="yolo-v8", classes=("a", "b")))
    np.testing.assert_allclose(found[0, :4], truth, atol=0.01)
    assert found[0, 4:].tolist() == pytest.approx([0.8, 1])


def test_colour_scale_and_padding_of_the_input() -> None:
    frame = np.zeros((80, 160, 3), dtype=np.uint8)
    frame[:, :, 0] = 255  # blue
    batch, _ = prepare(frame, InputSpec(height=160, width=160))
    assert batch[0, :, 80, 80].tolist() == [0, 0, 1]  # RGB
    assert batch[0, :, 0, 0] == pytest.approx([114 / 255] * 3)


def test_weaker_overlapping_boxes_of_one_class_are_dropped() -> None:
    raw = np.zeros((1, 6, 3), dtype=np.float32)
    raw[0, :4] = np.array([[50, 50, 20, 20], [51, 50, 20, 20], [51, 50, 20, 20]]).T
    raw[0, 4] = 0.9, 0.8, 0.0
    raw[0, 5] = 0.0, 0.0, 0.7
    _, place = prepare(np.zeros((160, 160, 3), dtype=np.uint8), InputSpec(height=160, width=160))
    found = decode(raw, place, OutputSpec(head="yolo-v8", classes=("a", "b")))
    assert found[:, 4:].tolist() == [pytest.approx([0.9, 0]), pytest.approx([0.7, 1])]


def test_an_output_of_another_shape_is_named() -> None:
    _, place = prepare(np.zeros((8, 8, 3), dtype=np.uint8), InputSpec(height=160, width=160))
    with pytest.raises(ValueError, match="is not"):
        decode(np.zeros((1, 9, 5), np.float32), place, OutputSpec(head="yolo-v8", classes=("a",)))


def test_an_end_to_end_output_is_taken_as_it_is() -> None:
    spec = OutputSpec(head="yolo-end2end", classes=("a", "b"))
    _, place = prepare(np.zeros((80, 160, 3), dtype=np.uint8), InputSpec(height=160, width=160))
    raw = np.array(
        [[[10, 50, 40, 90, 0.9, 1.001], [11, 50, 40, 90, 0.8, 0.999], [1, 2, 3, 4, 0.1, 0]]],
        dtype=np.float32,
    )
    found = decode(raw, place, spec)
    # Both stay although they overlap; 40 rows of padding lie above the frame.
    np.testing.assert_allclose(
        found, [[10, 10, 40, 50, 0.9, 1], [11, 10, 40, 50, 0.8, 1]], atol=1e-5
    )
    with pytest.raises(ValueError, match="names class 7, there are 2"):
        decode(raw * np.float32([1, 1, 1, 1, 1, 7]), place, spec)
    with pytest.raises(ValueError, match="is not"):
        decode(raw[:, :, :5], place, spec)


def plainly(frame: np.ndarray, spec: InputSpec) -> np.ndarray:
    """The same in the words of OpenCV: a padded copy, made a batch."""
    import cv2

    height, width = frame.shape[:2]
    ratio = min(spec.height / height, spec.width / width)
    new_w, new_h = round(width * ratio), round(height * ratio)
    if not spec.letterbox:
        new_w, new_h = spec.width, spec.height
    left, top = round((spec.width - new_w) / 2 - 0.1), round((spec.height - new_h) / 2 - 0.1)
    canvas = np.full((spec.height, spec.width, 3), spec.fill, dtype=np.uint8)
    canvas[top : top + new_h, left : left + new_w] = cv2.resize(frame, (new_w, new_h))
    return np.asarray(cv2.dnn.blobFromImage(canvas, scalefactor=spec.scale, swapRB=True))


def test_the_quick_way_into_the_engine_gives_the_same_numbers() -> None:
    rng = np.random.default_rng(0)
    for letterbox, scale in ((True, 1 / 255), (False, 1 / 255), (True, 1.0)):
        spec = InputSpec(height=160, width=192, letterbox=letterbox, scale=scale, fill=114)
        again = Preparer(spec)
        for height, width in ((160, 192), (480, 640), (33, 200), (480, 640), (101, 333)):
            frame = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
            wanted = plainly(frame, spec)
            np.testing.assert_array_equal(prepare(frame, spec)[0], wanted)
            np.testing.assert_array_equal(again(frame)[0], wanted)


def test_what_is_no_frame_is_refused() -> None:
    spec = InputSpec(height=160, width=160)
    for wrong in (np.zeros((8, 8), np.uint8), np.zeros((8, 8, 4), np.uint8),
                  np.zeros((0, 8, 3), np.uint8), np.zeros((8, 8, 3), np.float32)):  # fmt: skip
        with pytest.raises(ValueError, match="a frame is"):
            prepare(wrong, spec)


def anchor_by_anchor(raw: np.ndarray, conf: float, multi_label: bool) -> list[list[float]]:
    """The boxes above ``conf`` as one would read them aloud: centre, size, score, class."""
    found = []
    for anchor in raw[0].T:
        scores = anchor[4:]
        named = range(len(scores)) if multi_label else [int(scores.argmax())]
        for each in named:
            if scores[each] > conf:
                x, y, w, h = anchor[:4]
                found.append([x - w / 2, y - h / 2, x + w / 2, y + h / 2, scores[each], each])
    return sorted(found, key=lambda each: -each[4])


@pytest.mark.parametrize("multi_label", [False, True])
def test_no_box_is_lost_on_the_way_out(multi_label: bool) -> None:
    rng = np.random.default_rng(1)
    raw = rng.random((1, 9, 40), dtype=np.float32)
    raw[0, :2] = rng.uniform(40, 120, (2, 40))
    raw[0, 2:4] = 8.0
    _, place = prepare(np.zeros((160, 160, 3), np.uint8), InputSpec(height=160, width=160))
    spec = OutputSpec(head="yolo-v8", classes=tuple("abcde"))
    found = decode(raw, place, spec, conf=0.8, iou=1.0, multi_label=multi_label)
    np.testing.assert_allclose(found, anchor_by_anchor(raw, 0.8, multi_label), rtol=1e-6)


def test_one_number_that_is_none_is_seen() -> None:
    raw = np.full((1, 84, 8400), 3e37, dtype=np.float32)
    assert all_finite(raw), "their sum is not, but each of them is"
    for wrong in (np.nan, np.inf, -np.inf):
        raw[0, 80, 4000] = wrong
        assert not all_finite(raw)
    raw[0, 80, 3999] = np.inf  # with the other infinity it comes to nothing
    assert not all_finite(raw)
