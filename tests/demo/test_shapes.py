"""The drawn data: labels must lie where the shapes are, or every figure of the demo is void."""

from __future__ import annotations

import filecmp
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml

from demo.shapes import CLASSES, Shape, draw_dataset, draw_video, scene
from kedge_builder.data.datasets import read_data

SIZE = 160


@pytest.mark.parametrize("label", range(len(CLASSES)))
def test_the_box_is_what_was_painted(label: int) -> None:
    shape = Shape(label, 80.3, 61.7, 24, 0.13, (255, 255, 255))
    canvas = np.zeros((SIZE, SIZE, 3), np.uint8)
    cv2.fillPoly(canvas, [np.round(shape.points()).astype(np.int32)], shape.colour)
    rows, columns = np.nonzero(canvas[:, :, 0])
    painted = columns.min(), rows.min(), columns.max() + 1, rows.max() + 1
    box = shape.box(SIZE)
    assert box is not None
    assert np.abs(np.array(painted) - np.array(box)).max() <= 1.5


def test_a_shape_that_is_hardly_seen_has_no_label() -> None:
    assert Shape(1, -15, 80, 20, 0, (0, 0, 0)).box(SIZE) is None
    cut = Shape(1, 0, 80, 20, 0, (0, 0, 0)).box(SIZE)
    assert cut is not None
    assert cut[0] == 0


def test_the_same_seed_draws_the_same_scene() -> None:
    first, second, other = (scene(np.random.default_rng(seed), SIZE)[0] for seed in (3, 3, 4))
    assert np.array_equal(first, second)
    assert not np.array_equal(first, other)


def test_swapped_labels_change_names_and_nothing_else(tmp_path: Path) -> None:
    right = draw_dataset(tmp_path / "right", train=8, val=4, size=SIZE, seed=1)
    swap = {at: (at + 1) % len(CLASSES) for at in range(len(CLASSES))}
    wrong = draw_dataset(tmp_path / "wrong", train=8, val=4, size=SIZE, seed=1, swap_labels=swap)
    images = [f"val-{at:05d}.jpg" for at in range(4)]
    same, _, _ = filecmp.cmpfiles(
        right.parent / "val" / "images", wrong.parent / "val" / "images", images, shallow=False
    )
    assert same == images
    for name in images:
        before, after = (
            [line.split() for line in (each.parent / "val" / "labels" / name)
             .with_suffix(".txt").read_text().splitlines()]
            for each in (right, wrong)
        )  # fmt: skip
        assert [row[1:] for row in before] == [row[1:] for row in after]
        assert [swap[int(row[0])] for row in before] == [int(row[0]) for row in after]


def test_the_builder_reads_what_was_drawn(tmp_path: Path) -> None:
    data = read_data(draw_dataset(tmp_path / "data", train=12, val=6, size=SIZE, seed=1))
    assert data.classes == CLASSES
    assert len(data.gate) == 6
    assert sum(len(each.truth(SIZE, SIZE)) for each in data.gate) >= 6


def test_the_video_has_its_frames_and_they_move(tmp_path: Path) -> None:
    path = tmp_path / "camera.mp4"
    draw_video(path, seconds=2, fps=10, size=SIZE, seed=7)
    capture = cv2.VideoCapture(str(path))
    frames = []
    while (got := capture.read())[0]:
        frames.append(got[1].astype(np.int64))
    assert len(frames) == 20
    assert np.abs(frames[0] - frames[-1]).max() > 60


def test_the_walk_has_a_configuration_that_the_agent_reads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from demo import shapes
    from kedge_agent.settings import read_settings
    from kedge_agent.specs import sources_of

    drawn = {"train": 8, "val": 4, "size": 64, "seed": 1}
    monkeypatch.setattr(shapes, "draw_dataset", lambda root, **_: draw_dataset(root, **drawn))
    monkeypatch.setattr("sys.argv", ["shapes", str(tmp_path / "walk")])
    shapes.main()
    settings = read_settings(tmp_path / "walk" / "agent.yaml")
    (camera,) = sources_of(settings.source, Path())
    assert camera.path is not None
    assert camera.path.is_file()
    assert settings.models == ("shapes",)
    assert yaml.safe_load((tmp_path / "walk" / "data" / "data.yaml").read_text())["names"]
