"""Fine-tuning: the architecture stays as it is, and so does the user's folder."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from kedge_builder.compress import channels
from kedge_builder.compress.finetune import FinetuneOptions, finetune
from kedge_builder.compress.response import distance
from kedge_builder.compress.split import split_csp
from kedge_builder.data.datasets import read_data
from kedge_builder.models.weights import Trained, load
from kedge_builder.progress import Progress
from kedge_shared.errors import InputError
from tests.conftest import FIXTURE, SIZE

QUIET = Progress(quiet=True)
SHORT = FinetuneOptions(epochs=1, size=SIZE, device="cpu")
LONGER = replace(SHORT, epochs=4, lr=5e-4, distil=10.0)


@pytest.fixture(scope="module")
def pruned() -> Trained:
    """The fixture without its weaker channels."""
    trained = load(FIXTURE)
    model = split_csp(trained.model)
    macs = channels.macs_and_parameters(model, 64)[0]
    channels.take_away(model, torch.rand(2, 3, 64, 64), 0.6 * macs, lambda: None)
    return replace(trained, model=model.eval())


def snapshot(folder: Path) -> dict[str, int]:
    return {str(each): each.stat().st_mtime_ns for each in folder.rglob("*")}


def test_a_pruned_network_stays_pruned_learns_and_touches_no_file_of_the_user(
    pruned: Trained, shapes: Path, tmp_path: Path
) -> None:
    teacher, data = load(FIXTURE), read_data(shapes)
    broken = tmp_path / "cut.jpg"  # Ultralytics would mend it where it lies
    import cv2

    cv2.imwrite(str(broken), data.train[0].frame())
    broken.write_bytes(broken.read_bytes()[:-2])
    before, bytes_before = snapshot(shapes.parent), broken.read_bytes()
    data = replace(data, train=(*data.train, replace(data.train[0], image=broken)))
    weights = {name: each.clone() for name, each in pruned.model.state_dict().items()}

    out = finetune(pruned, data, LONGER, tmp_path / "out.pt", progress=QUIET, teacher=teacher)

    made = load(out)
    assert {n: e.shape for n, e in made.model.state_dict().items()} == {
        n: e.shape for n, e in weights.items()
    }
    assert snapshot(shapes.parent) == before
    assert broken.read_bytes() == bytes_before
    assert all(torch.equal(e, weights[n]) for n, e in pruned.model.state_dict().items())
    images = torch.stack([torch.from_numpy(each.frame()) for each in data.gate[:8]])
    images = images.permute(0, 3, 1, 2).flip(1).float() / 255
    with torch.no_grad():
        wanted = teacher.model(images)
        assert distance(made.model(images), wanted) < distance(pruned.model(images), wanted)

    again = finetune(made, shapes, SHORT, tmp_path / "again.pt", progress=QUIET)
    assert load(again).classes == teacher.classes


def test_the_teacher_is_heard(pruned: Trained, shapes: Path, tmp_path: Path) -> None:
    data = read_data(shapes)
    few = replace(data, train=data.train[:16])
    alone = finetune(pruned, few, SHORT, tmp_path / "a.pt", progress=QUIET)
    taught = finetune(pruned, few, SHORT, tmp_path / "b.pt", progress=QUIET, teacher=load(FIXTURE))
    first, second = load(alone).model.state_dict(), load(taught).model.state_dict()
    assert any(not torch.equal(first[name], second[name]) for name in first)


def test_data_that_cannot_be_trained_on_is_named(
    pruned: Trained, shapes: Path, tmp_path: Path
) -> None:
    data = read_data(shapes)
    with pytest.raises(InputError, match="no labelled images"):
        finetune(pruned, replace(data, train=()), SHORT, tmp_path / "o.pt", progress=QUIET)
    with pytest.raises(InputError, match="4 classes, the data 1"):
        finetune(pruned, replace(data, classes=("a",)), SHORT, tmp_path / "o.pt", progress=QUIET)
    assert not (tmp_path / "o.pt").exists()
