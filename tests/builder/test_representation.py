"""Does the calibration set stand for the evaluation data: what is flagged, and what is not."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from kedge_builder.data.representation import LARGE_ENERGY, energy, represents
from kedge_shared.errors import InputError
from tests.builder.described import CLASSES, world

DAY = world(1, 200)


def test_random_splits_of_the_same_data_are_not_flagged() -> None:
    everything = world(2, 260)
    flagged = 0
    for seed in range(120):
        order = np.random.default_rng(seed).permutation(len(everything))
        split = [everything[at] for at in order[:128]], [everything[at] for at in order[128:]]
        flagged += represents(*split, CLASSES, seed=seed).verdict != "represents"
    assert flagged <= 6


def test_small_sets_of_the_same_data_are_not_flagged_either() -> None:
    verdicts = [represents(world(seed, 12), DAY, CLASSES).verdict for seed in range(100, 200)]
    assert verdicts.count("differs") <= 5
    assert "represents" not in verdicts


@pytest.mark.parametrize(
    ("aspect", "changes", "said"),
    [
        ("brightness", {"light": 31}, r"calibration 34 \(3 to 66\), evaluation 118 \(78 to 149\)"),
        (
            "size",
            {"area": 0.005},
            "objects take 0.5.% of a calibration image, 5...% of an evaluation",
        ),
        ("classes", {"shares": (0.6, 0.4, 0.0, 0.1)}, "c in 0% of the calibration images, in 2.%"),
        ("classes", {"shares": (0.6, 0.4, 0.3, 0.0)}, "d in 0% of the calibration images, in .*%"),
        ("classes", {"shares": (0.1, 0.4, 0.3, 0.1)}, "a in .*% of the calibration"),
        ("features", {"shift": 0.8}, "the detector sees other pictures"),
    ],
)
def test_what_differs_is_named(aspect: str, changes: dict[str, float], said: str) -> None:
    found = represents(world(7, 200, **changes), DAY, CLASSES)
    assert found.verdict == "differs"
    assert [name for name, each in found.aspects.items() if each.differs] == [aspect]
    with pytest.raises(AssertionError, match=f"^{aspect}: {said}"):
        raise AssertionError(found.reasons[0])


def test_contrast_is_looked_at() -> None:
    flat = [replace(each, contrast=each.contrast / 3) for each in world(8, 128)]
    assert represents(flat, DAY, CLASSES).reasons[0].startswith("contrast: calibration 1")


def test_a_difference_that_is_significant_but_small_is_no_difference() -> None:
    many, brighter = world(3, 800), world(4, 800, light=124)
    aspect = represents(many, brighter, CLASSES).aspects["brightness"]
    assert aspect.p is not None
    assert aspect.p < 0.01
    assert not aspect.differs


def test_a_steady_camera_a_little_brighter_is_no_difference() -> None:
    steady = [replace(each, brightness=100 + at % 3) for at, each in enumerate(DAY)]
    brighter = [replace(each, brightness=105 + at % 3) for at, each in enumerate(DAY)]
    aspect = represents(steady, brighter, CLASSES).aspects["brightness"]
    assert aspect.statistic == 1.0
    assert not aspect.differs


def test_without_labels_sizes_and_classes_are_not_judged() -> None:
    found = represents(world(5, 128, labelled=False), DAY, CLASSES)
    assert found.verdict == "represents"
    assert found.aspects["classes"].statistic is None
    assert any("no labels" in each for each in found.reasons)
    night = represents(world(5, 128, light=31, labelled=False), DAY, CLASSES)
    assert night.verdict == "differs"


def test_a_rare_class_that_is_missing_by_chance_is_told_of() -> None:
    rare = [replace(each, classes=frozenset({0, 3} if at == 0 else {0})) for at, each in
            enumerate(DAY)]  # fmt: skip
    found = represents([replace(each, classes=frozenset({0})) for each in world(6, 128)], rare,
                       CLASSES)  # fmt: skip
    assert not found.aspects["classes"].differs
    assert "1 of 2 classes are in no calibration image" in found.aspects["classes"].sentence


@pytest.mark.parametrize("count", [0, 3, 7])
def test_too_few_images_are_refused(count: int) -> None:
    with pytest.raises(InputError, match=f"leaves {count} images .* 8 at the very least"):
        represents(world(1, count), DAY, CLASSES)


def test_the_energy_coefficient() -> None:
    rng = np.random.default_rng(0)
    apart = energy(np.zeros((20, 3)), np.ones((20, 3)), rng)
    assert apart == (pytest.approx(1.0), pytest.approx(1 / 401))
    same = energy(rng.normal(size=(60, 8)), rng.normal(size=(60, 8)), rng)
    assert same[0] < LARGE_ENERGY
    assert energy(np.ones((5, 2)), np.ones((6, 2)), rng) == (0.0, 1.0)
