"""The calibration set: covers the pool, holds no duplicate, shares nothing with the verdict."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml

from demo.shapes import CLASSES as SHAPES
from kedge_builder.data.calibration_report import as_report
from kedge_builder.data.curation import Curation, CurationOptions, curate
from kedge_builder.data.curation_step import curated, steps
from kedge_builder.data.datasets import Data, Sample, read_data
from kedge_builder.data.features import Vector
from kedge_builder.data.selection import choose, coverage, embed, random_coverage
from kedge_shared.errors import InputError
from kedge_shared.vision import Frame
from tests.builder.described import CLASSES, world

POOL, EVALUATION = world(1, 200), world(2, 150)
FEW = CurationOptions(count=40)


def colours(frame: Frame) -> Vector:
    """Stands for the detector in these tests."""
    return np.asarray(cv2.resize(frame, (4, 4)).ravel(), dtype=np.float32)


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("count", [8, 40, 128])
def test_it_covers_better_than_chance(seed: int, count: int) -> None:
    images = world(seed, 100) + world(seed + 50, 60, light=40, shift=2) + world(seed + 99, 8)
    points = embed(images, len(CLASSES))
    chosen = choose(points, [each.classes or frozenset() for each in images], count)
    assert len(set(chosen)) == count
    assert coverage(points, chosen) < random_coverage(points, count, seed=seed)


def test_a_rare_class_is_among_the_chosen() -> None:
    common = world(3, 300, shares=(0.9, 0.5, 0.5, 0.0))
    rare = replace(common[211], classes=frozenset({3}))
    found = curate([*common[:211], rare, *common[212:]], EVALUATION, CLASSES, FEW)
    assert any(3 in (each.classes or ()) for each in found.calibration)


def test_it_is_the_same_every_time() -> None:
    first, second = (curate(POOL, EVALUATION, CLASSES, FEW) for _ in range(2))
    assert first.chosen == second.chosen
    assert first.representation == second.representation


@pytest.mark.parametrize("seed", range(10))
def test_a_curated_set_of_the_same_world_is_not_flagged(seed: int) -> None:
    found = curate(world(seed + 300, 500), EVALUATION, CLASSES, CurationOptions(seed=seed))
    assert found.representation.verdict == "represents", found.representation.reasons


def test_night_for_a_day_model_is_flagged() -> None:
    found = curate(world(4, 200, light=31), EVALUATION, CLASSES, FEW)
    assert found.representation.verdict == "differs"
    assert found.representation.reasons[0].startswith("brightness: calibration 2")


def test_repeated_candidates_are_dropped_and_named() -> None:
    again = replace(POOL[3], name="again.jpg", sha256="other bytes")
    copy = replace(POOL[5], name="copy.jpg")
    found = curate([*POOL, again, copy], EVALUATION, CLASSES, FEW)
    assert {(each.name, each.other) for each in found.duplicates} == {
        ("again.jpg", POOL[3].name),
        ("copy.jpg", POOL[5].name),
    }
    assert len(found.pool) == len(POOL)


def test_one_background_with_another_object_is_no_repetition() -> None:
    picture = POOL[3].picture.copy()
    picture[100:110] += 3
    other = replace(POOL[3], name="car.jpg", sha256="car", picture=picture)
    assert not curate([*POOL, other], EVALUATION, CLASSES, FEW).duplicates


def test_evaluation_images_are_barred_and_named() -> None:
    code = EVALUATION[7].code.copy()
    code[:20] *= -1
    leak = replace(EVALUATION[7], name="leak.jpg", sha256="saved anew", code=code)
    found = curate([*POOL, leak], EVALUATION, CLASSES, CurationOptions(count=201))
    assert [(each.name, each.other) for each in found.leaks] == [("leak.jpg", "2/7.jpg")]
    assert len(found.chosen) == len(POOL)


def test_a_pool_full_of_evaluation_images_is_refused() -> None:
    with pytest.raises(InputError, match=r"60 of 260 images of 'train' .* \(2/0.jpg, 2/1.jpg"):
        curate([*POOL, *EVALUATION[:60]], EVALUATION, CLASSES, FEW)
    with pytest.raises(InputError, match=r"1 of 201 images of 'calibration' .* \(2/0.jpg\)"):
        curate([*POOL, EVALUATION[0]], EVALUATION, CLASSES, FEW, given=True)


def test_too_few_distinct_candidates_are_refused() -> None:
    same = [replace(POOL[0], name=f"{at}.jpg", sha256=str(at)) for at in range(9)]
    with pytest.raises(InputError, match="9 images, 0 of the evaluation's and 8 repeated"):
        curate(same, EVALUATION, CLASSES, FEW)


def test_a_pool_that_is_hardly_enough_is_taken_whole() -> None:
    found = curate(world(1, 9), EVALUATION, CLASSES, CurationOptions())
    assert sorted(found.chosen) == list(range(9))
    assert found.representation.verdict == "undecided"


def test_the_report_counts_every_image() -> None:
    report = as_report(curate([*POOL, EVALUATION[0]], EVALUATION, CLASSES, FEW))
    assert (report["images"], report["pool"], report["verdict"]) == (40, 201, "represents")
    assert report["leaks"] == [{"image": "2/0.jpg", "same_as": "2/0.jpg"}]
    for aspect in ("brightness", "contrast"):
        for side in ("pool", "chosen", "evaluation"):
            assert sum(report["coverage"][aspect][side]) == pytest.approx(1, abs=0.01)
    classes = report["coverage"]["classes"]
    assert classes["evaluation"]["a"] == pytest.approx(0.6, abs=0.1)
    features = report["coverage"]["features"]
    assert features["distance_to_nearest_chosen"] < features["distance_at_random"]


@pytest.fixture(scope="module")
def own(shapes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the drawn data with a folder of calibration images; returns its root."""
    root = tmp_path_factory.mktemp("own") / "data"
    shutil.copytree(shapes.parent, root)
    (root / "mine").mkdir()
    for each in sorted((root / "train" / "images").iterdir())[:24]:
        image = cv2.imread(str(each))
        assert image is not None
        cv2.imwrite(str(root / "mine" / each.name), np.asarray(image * 0.2, dtype=np.uint8))
    return root


def reading(root: Path, **changes: object) -> Data:
    body = yaml.safe_load((root / "data.yaml").read_text())
    path = root / "changed.yaml"
    path.write_text(yaml.safe_dump({**body, "path": str(root), **changes}))
    return read_data(path)


def test_data_are_split_before_and_curated_after(own: Path) -> None:
    data = reading(own)
    ticks: list[None] = []
    options = CurationOptions(count=30)
    found = curated(data, colours, options, lambda: ticks.append(None))
    assert len(ticks) == steps(data, options)
    assert len(found.calibrate) == 30
    assert isinstance(found.calibration, Curation)
    assert found.calibration.classes == SHAPES
    splits = [{each.sha256 for each in split} for split in (data.train, data.select, data.gate)]
    assert [len(each) for each in splits] == [54, 18, 60]
    assert not splits[0] & splits[1]
    assert {each.sha256 for each in found.calibrate} <= splits[0]
    assert set(found.train) == set(data.train)
    assert curated(data, colours, options).calibrate == found.calibrate


def test_a_folder_of_ones_own_is_the_only_pool(own: Path) -> None:
    data = reading(own, calibration="mine")
    found = curated(data, colours, CurationOptions())
    assert {each.image.parent.name for each in found.calibrate} == {"mine"}
    assert len(data.train) == 54
    assert found.calibration is not None
    assert found.calibration.representation.verdict == "differs"
    assert found.calibration.representation.reasons[0].startswith("brightness")
    assert found.calibration.representation.aspects["classes"].statistic is None


def test_an_evaluation_image_saved_anew_is_found(own: Path, tmp_path: Path) -> None:
    root = tmp_path / "data"
    shutil.copytree(own, root)
    judged = next((root / "val" / "images").iterdir())
    image = cv2.imread(str(judged))
    assert image is not None
    cv2.imwrite(str(root / "train" / "images" / "zz.png"), cv2.resize(image, (120, 120)))
    data = reading(root)
    found = curated(data, colours, CurationOptions())
    where = {each.image.name for each in (*found.calibrate, *found.select, *found.train)}
    assert "zz.png" not in where
    assert any("train/images/zz.png" in each for each in found.notes)
    cv2.imwrite(str(root / "mine" / "zz.png"), image)
    with pytest.raises(InputError, match=r"1 of 25 images of 'calibration' .*mine/zz.png"):
        curated(reading(root, calibration=["mine"]), colours, CurationOptions())


@pytest.mark.parametrize("seed", range(4))
def test_a_leak_leaves_what_is_trained_on(own: Path, tmp_path: Path, seed: int) -> None:
    """Five saved anew: some are drawn to choose, the others are left to train on."""
    root = tmp_path / "data"
    shutil.copytree(own, root)
    for at, judged in enumerate(sorted((root / "val" / "images").iterdir())[:5]):
        image = cv2.imread(str(judged))
        assert image is not None
        cv2.imwrite(str(root / "train" / "images" / f"zz{at}.png"), cv2.resize(image, (120, 120)))
    reading(root)
    data = read_data(root / "changed.yaml", seed=seed)

    def leaked(split: tuple[Sample, ...]) -> set[str]:
        return {each.image.name for each in split if each.image.name.startswith("zz")}

    found = curated(data, colours, CurationOptions(count=20, seed=seed))
    assert leaked(data.train)
    assert not leaked(found.train) | leaked(found.select) | leaked(found.calibrate)
    assert len(found.train) + len(leaked(data.train)) == len(data.train)


def test_a_large_pool_is_looked_at_in_part(own: Path) -> None:
    options = CurationOptions(count=20, pool_limit=25)
    found = curated(reading(own), colours, options).calibration
    assert found is not None
    assert as_report(found)["pool"] == 25


def test_three_images_are_refused(own: Path, tmp_path: Path) -> None:
    root = tmp_path / "data"
    shutil.copytree(own, root)
    for each in sorted((root / "mine").iterdir())[3:]:
        each.unlink()
    with pytest.raises(InputError, match="leaves 3 images .* 8 at the very least"):
        reading(root, calibration="mine")


def test_train_and_val_the_same_folder_is_refused(own: Path) -> None:
    with pytest.raises(InputError, match="60 of 60 images of 'train' are evaluation images too"):
        reading(own, train="val/images")
