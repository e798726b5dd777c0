"""One's own data set: copied, never touched."""

from __future__ import annotations

from pathlib import Path

import pytest

from demo.own_data import copy_data
from demo.shapes import CLASSES, draw_dataset
from kedge_builder.data.datasets import Data, read_data
from kedge_shared.errors import InputError


@pytest.fixture
def mine(tmp_path: Path) -> Data:
    return read_data(draw_dataset(tmp_path / "mine", train=12, val=6, size=64, seed=1))


def test_a_copy_is_a_data_set_with_the_same_images(mine: Data, tmp_path: Path) -> None:
    copy = read_data(copy_data(mine, tmp_path / "copy"))
    assert copy.classes == mine.classes
    assert {each.sha256 for each in copy.gate} == {each.sha256 for each in mine.gate}
    for before in mine.gate:
        after = next(each for each in copy.gate if each.sha256 == before.sha256)
        assert (before.truth(64, 64) == after.truth(64, 64)).all()


def test_a_shifted_copy_calls_every_class_by_another_name(mine: Data, tmp_path: Path) -> None:
    wrong = read_data(copy_data(mine, tmp_path / "wrong", shift=1))
    for before in mine.gate:
        after = next(each for each in wrong.gate if each.sha256 == before.sha256)
        named = (before.truth(64, 64)[:, 0] + 1) % len(CLASSES)
        assert (named == after.truth(64, 64)[:, 0]).all()


def test_images_of_one_name_in_two_folders_are_both_kept(tmp_path: Path) -> None:
    for seed, folder in enumerate(("a", "b")):
        draw_dataset(tmp_path / folder, train=10, val=4, size=64, seed=seed)
    path = tmp_path / "data.yaml"
    path.write_text(
        "train: [a/train/images, b/train/images]\nval: [a/val/images, b/val/images]\n"
        "names: [circle, square, triangle, star]\n"
    )
    copy_data(read_data(path), tmp_path / "copy")
    assert len(list((tmp_path / "copy" / "val" / "images").iterdir())) == 8


def test_one_class_has_nothing_to_swap(mine: Data, tmp_path: Path) -> None:
    from dataclasses import replace

    with pytest.raises(InputError, match="one class"):
        copy_data(replace(mine, classes=("thing",)), tmp_path / "wrong", shift=1)
    assert not (tmp_path / "wrong").exists()
