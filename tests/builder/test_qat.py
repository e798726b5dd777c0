"""Quantization-aware training: nearer to float when rounded, ordinary float weights after."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch

from kedge_builder.compress import qat
from kedge_builder.compress.qat import QatOptions, adapt, quantized_convolutions, rounded
from kedge_builder.compress.response import last_convolutions
from kedge_builder.compress.split import split_csp
from kedge_builder.data.datasets import Data, read_data
from kedge_builder.models import checkpoint, export
from kedge_builder.models.weights import Trained, load
from kedge_builder.progress import Progress
from kedge_shared.errors import InputError
from tests.conftest import FIXTURE, SIZE

QUIET = Progress(quiet=True)
OPTIONS = QatOptions(size=SIZE, steps=25, lr=5e-5, weight_bits=7)


@pytest.fixture(scope="module")
def trained() -> Trained:
    return load(FIXTURE)


@pytest.fixture(scope="module")
def data(shapes: Path) -> Data:
    return read_data(shapes)


def apart(model: object, trained: Trained, data: Data) -> float:
    """Distance of a rounded model to the float one, on images that no one has learned from."""
    model = copy.deepcopy(model)
    ranges = [qat._batch([each], SIZE) for each in data.calibrate[:8]]
    with rounded(model, ranges, OPTIONS):
        return qat._apart(model, trained.model, data.gate[:20], OPTIONS)


def test_rounded_answers_come_nearer_to_float_and_the_structure_is_the_same(
    trained: Trained, data: Data, tmp_path: Path
) -> None:
    kept = {name: each.clone() for name, each in trained.model.state_dict().items()}
    made = adapt(trained, data.calibrate, OPTIONS, QUIET)
    assert made is not trained
    assert apart(made.model, trained, data) < 0.9 * apart(trained.model, trained, data)
    after = made.model.state_dict()
    assert {n: e.shape for n, e in after.items()} == {n: e.shape for n, e in kept.items()}
    assert all(torch.equal(e, kept[n]) for n, e in trained.model.state_dict().items())
    assert [type(each) for each in made.model.modules()] == [
        type(each) for each in trained.model.modules()
    ]
    checkpoint.save(made.model, tmp_path / "qat.pt", size=SIZE)
    again = load(tmp_path / "qat.pt")
    assert export.to_onnx(again.model, SIZE) == export.to_onnx(made.model, SIZE)


def test_training_that_does_not_help_changes_nothing(trained: Trained, data: Data) -> None:
    wild = QatOptions(size=SIZE, steps=2, lr=0.1)
    assert adapt(trained, data.calibrate[:10], wild, QUIET) is trained


@pytest.mark.parametrize("name", ["yolov8n.yaml", "yolo11n.yaml", "yolo26n.yaml"])
def test_the_float_zone_is_never_rounded(name: str) -> None:
    from ultralytics.nn.tasks import DetectionModel

    model = split_csp(DetectionModel(name, nc=4, verbose=False).eval())
    branches = 12 if "26" in name else 6
    zone = last_convolutions(model)
    assert len(zone) == branches
    assert {each.out_channels for each in zone} == {4, 4 * model.model[-1].reg_max}
    taken = {id(each) for each in quantized_convolutions(model)}
    dfl = [each for each in model.model[-1].dfl.modules() if isinstance(each, torch.nn.Conv2d)]
    assert not taken & {id(each) for each in (*zone, *dfl)}
    every = [each for each in model.modules() if isinstance(each, torch.nn.Conv2d)]
    assert len(taken) == len(every) - len(zone) - len(dfl)
    with rounded(model, [torch.rand(1, 3, 64, 64)], OPTIONS):
        assert all(not hasattr(each, "parametrizations") for each in (*zone, *dfl))
        assert all(not each._forward_pre_hooks for each in (*zone, *dfl))
    assert all(not hasattr(each, "parametrizations") for each in every)


def test_weights_are_rounded_per_channel_and_activations_keep_zero() -> None:
    weight = torch.tensor([[[[1.0]]], [[[0.01]]]])
    assert torch.allclose(qat._RoundedWeight(8)(weight), weight)
    given = torch.tensor([-0.3, 0.0, 0.1, 6.0])
    (found,) = qat._RoundedInput(-0.28, 6.0)(None, (given,))
    assert found[1] == 0
    assert (found - given).abs().max() < 0.04


def test_few_images_are_refused(trained: Trained, data: Data) -> None:
    with pytest.raises(InputError, match="3 images are too few"):
        adapt(trained, data.calibrate[:3], OPTIONS, QUIET)
