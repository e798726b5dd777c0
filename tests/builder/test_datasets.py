"""Data sets: splits that never meet, and errors that name the file."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml

from kedge_builder.data.datasets import read_data
from kedge_shared.errors import InputError


def picture(path: Path, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 255, (32, 48, 3), dtype=np.uint8)
    cv2.imwrite(str(path), pixels)


def dataset(root: Path, train: int = 20, val: int = 10, *, labels: bool = True) -> Path:
    seed = 0
    for split, count in (("train", train), ("val", val)):
        for at in range(count):
            seed += 1
            picture(root / split / "images" / f"{at}.png", seed)
            if labels:
                label = root / split / "labels" / f"{at}.txt"
                label.parent.mkdir(exist_ok=True)
                label.write_text("1 0.5 0.5 0.25 0.5\n")
    body = {"path": str(root), "val": "val/images", "names": ["a", "b"]}
    if train:
        body["train"] = "train/images"
    (root / "data.yaml").write_text(yaml.safe_dump(body))
    return root / "data.yaml"


def test_splits_never_meet(tmp_path: Path) -> None:
    data = read_data(dataset(tmp_path, 40, 12))
    groups = [{each.sha256 for each in split} for split in (data.calibrate, data.select, data.gate)]
    assert len(groups[2]) == 12
    assert not groups[0] & groups[2]
    assert not groups[1] & groups[2]


def test_training_images_neither_choose_nor_judge(tmp_path: Path) -> None:
    data = read_data(dataset(tmp_path, 40, 12))
    train, choose, judge = (
        {each.sha256 for each in split} for split in (data.train, data.select, data.gate)
    )
    assert len(train) == 40 - len(choose)
    assert not train & (choose | judge)


def test_an_image_of_both_splits_is_left_to_the_verdict(tmp_path: Path) -> None:
    path = dataset(tmp_path, 20, 10)
    copied = (tmp_path / "val" / "images" / "0.png").read_bytes()
    (tmp_path / "train" / "images" / "copy.png").write_bytes(copied)
    data = read_data(path)
    assert any("1 images of 'train' are in 'val' too" in each for each in data.notes)
    used = {each.image.name for each in (*data.calibrate, *data.select)}
    assert "copy.png" not in used


def test_without_train_half_of_val_is_set_apart(tmp_path: Path) -> None:
    data = read_data(dataset(tmp_path, 0, 40))
    assert len(data.gate) == 20
    assert not {e.sha256 for e in data.calibrate} & {e.sha256 for e in data.gate}


def test_the_same_seed_draws_the_same(tmp_path: Path) -> None:
    path = dataset(tmp_path, 40, 12)
    assert read_data(path, seed=3).sha256 == read_data(path, seed=3).sha256
    assert read_data(path, seed=3).sha256 != read_data(path, seed=4).sha256


def test_boxes_are_pixels_of_the_image(tmp_path: Path) -> None:
    (first, *_) = read_data(dataset(tmp_path)).gate
    assert first.truth(32, 48).tolist() == [[1, 18, 8, 30, 24]]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda b: b.pop("val"), "has no 'val' images"),
        (lambda b: b.pop("names"), "has no 'names'"),
        (lambda b: b.update(names=["only"]), "labels of class 1"),
        (lambda b: b.update(val="nowhere"), "which is no folder"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, change, said: str) -> None:
    path = dataset(tmp_path)
    body = yaml.safe_load(path.read_text())
    change(body)
    path.write_text(yaml.safe_dump(body))
    with pytest.raises(InputError, match=said) as refused:
        read_data(path)
    assert str(tmp_path) in str(refused.value)


@pytest.mark.parametrize("content", ["[1, 2", "just text", ""])
def test_no_yaml(tmp_path: Path, content: str) -> None:
    path = tmp_path / "data.yaml"
    path.write_text(content)
    with pytest.raises(InputError, match="data.yaml"):
        read_data(path)


def test_images_without_labels(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="has no labels"):
        read_data(dataset(tmp_path, labels=False))


def test_too_few_to_calibrate(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="6 images for calibration"):
        read_data(dataset(tmp_path, 7, 10))


def test_labels_that_are_no_numbers(tmp_path: Path) -> None:
    path = dataset(tmp_path)
    (tmp_path / "val" / "labels" / "0.txt").write_text("cat 0.5 0.5 0.1\n")
    with pytest.raises(InputError, match="no lines of"):
        read_data(path)
