"""What an image is described by: light, areas, classes, features, and what is the same picture."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest

from demo.shapes import scene
from kedge_builder.data.duplicates import repeated, same_pictures
from kedge_builder.data.features import Backbone, Description, Vector, describe
from kedge_builder.models import ultralytics_offline
from kedge_builder.models.torchvision_ops import ensure_torchvision_ops
from kedge_builder.models.weights import load
from kedge_shared.vision import Frame
from tests.conftest import FIXTURE


def nothing(frame: Frame) -> Vector:
    return np.zeros(1, dtype=np.float32)


def of(frame: Frame, name: str = "x") -> Description:
    return describe(frame, None, nothing, name=name, sha256=name)


def scenes(count: int) -> list[Frame]:
    rng = np.random.default_rng(11)
    return [scene(rng, 160)[0] for _ in range(count)]


def saved_anew(frame: Frame) -> Frame:
    coded = cv2.imencode(".jpg", frame, [cv2.IMWRITE_JPEG_QUALITY, 60])[1]
    return np.asarray(cv2.imdecode(coded, cv2.IMREAD_COLOR), dtype=np.uint8)


def test_light_areas_and_classes() -> None:
    frame = np.zeros((100, 200, 3), dtype=np.uint8)
    frame[:, 100:] = 200
    labels = np.array([[2, 0, 0, 20, 10], [0, 50, 50, 150, 100]], dtype=np.float32)
    found = describe(frame, labels, nothing, name="half", sha256="s")
    assert found.brightness == pytest.approx(100, abs=1)
    assert found.contrast == pytest.approx(100, abs=1)
    assert found.areas.tolist() == pytest.approx([0.01, 0.25])
    assert found.classes == {0, 2}


def test_an_image_without_labels_is_not_one_without_objects() -> None:
    frame = scenes(1)[0]
    empty = describe(frame, np.zeros((0, 5), dtype=np.float32), nothing, name="", sha256="")
    assert empty.classes == frozenset()
    assert of(frame).classes is None


@pytest.mark.parametrize(
    "change",
    [
        saved_anew,
        lambda frame: cv2.resize(frame, (96, 96), interpolation=cv2.INTER_AREA),
        lambda frame: (frame * 0.85).astype(np.uint8),
    ],
)
def test_the_same_picture_is_known_again(change) -> None:
    frames = scenes(20)
    before = [of(each, str(at)) for at, each in enumerate(frames)]
    after = [of(change(each), f"again {at}") for at, each in enumerate(frames)]
    found = [(each.index, each.other) for each in same_pictures(after, before)]
    assert found == [(at, at) for at in range(20)]


def test_different_pictures_are_told_apart() -> None:
    assert not repeated([of(each, str(at)) for at, each in enumerate(scenes(120))])


def test_another_object_before_the_same_background_is_another_picture() -> None:
    empty = scenes(1)[0]
    visited = empty.copy()
    cv2.rectangle(visited, (70, 70), (86, 86), (255, 255, 255), -1)
    one, other = of(empty, "empty"), of(visited, "visited")
    # The hash of a textured scene hardly moves: let it say "the same" and see who objects.
    assert not repeated([one, replace(other, code=one.code)])


def test_a_chain_of_repetitions_is_dropped_against_what_is_kept() -> None:
    frames = scenes(2)
    images = [of(frames[0], "a"), of(frames[0], "b"), of(frames[1], "c"), of(frames[0], "b")]
    assert [(each.index, each.other, each.exact) for each in repeated(images)] == [
        (1, 0, False),
        (3, 0, False),
    ]


def test_the_backbone_sees_likeness_and_leaves_the_model_alone() -> None:
    model = load(FIXTURE).model
    before = {name: value.clone() for name, value in model.state_dict().items()}
    extractor = Backbone(model)
    frames = scenes(12)
    seen = np.stack([extractor(each) for each in frames])
    again = np.stack([extractor(saved_anew(each)) for each in frames])
    away = np.linalg.norm(seen[:, None] - again[None], axis=2)
    assert np.median(np.diag(away)) < 0.6 * np.median(away[~np.eye(12, dtype=bool)])
    after = model.state_dict()
    assert all((after[name] == value).all() for name, value in before.items())


@pytest.mark.parametrize("name", ["yolov8n", "yolo11n", "yolo26n"])
def test_every_family_has_a_backbone(name: str) -> None:
    ensure_torchvision_ops()
    ultralytics_offline.quiet()
    from ultralytics.nn.tasks import DetectionModel

    found = Backbone(DetectionModel(f"{name}.yaml", nc=2, verbose=False).eval())(scenes(1)[0])
    assert found.shape == (256,)
    assert np.isfinite(found).all()


def test_frames_of_any_shape() -> None:
    found = of(np.full((40, 700, 3), 7, dtype=np.uint8))
    assert (found.brightness, found.contrast) == (7, 0)
    assert np.isfinite(found.picture).all()
