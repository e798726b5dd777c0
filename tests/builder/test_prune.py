"""Pruning: blocks that split exactly, models that survive a file, chains that can be killed."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from kedge_builder.compress import channels
from kedge_builder.compress.chain import PruneOptions, collapsed
from kedge_builder.compress.prune import prune
from kedge_builder.compress.response import distance, last_convolutions
from kedge_builder.compress.split import SplitC2f, SplitC2PSA, split_csp
from kedge_builder.data.datasets import Data, read_data
from kedge_builder.models import checkpoint, export
from kedge_builder.models.weights import Trained, load
from kedge_builder.progress import Progress
from kedge_shared.errors import InputError
from tests.conftest import FIXTURE, SIZE

QUIET = Progress(quiet=True)


@pytest.fixture(scope="module")
def trained() -> Trained:
    return load(FIXTURE)


@pytest.fixture(scope="module")
def data(shapes: Path) -> Data:
    return read_data(shapes)


def pictures(count: int = 2, size: int = SIZE) -> Any:
    return torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(3))


def from_yaml(name: str) -> Any:
    """A model with random weights and random, so not trivial, normalization."""
    from ultralytics.nn.tasks import DetectionModel

    torch.manual_seed(0)
    model = DetectionModel(name, nc=4, verbose=False).eval()
    for each in model.modules():
        if isinstance(each, torch.nn.BatchNorm2d):
            each.weight.data.uniform_(0.5, 1.5)
            each.bias.data.normal_()
            each.running_mean.normal_()
    return model


@pytest.mark.parametrize("name", ["yolov8n.yaml", "yolo11n.yaml", "yolo26n.yaml"])
def test_split_blocks_compute_the_same_bits_and_can_be_pruned(name: str) -> None:
    model = from_yaml(name)
    split = split_csp(model)
    assert any(isinstance(each, SplitC2f) for each in split.modules())
    assert any(isinstance(each, SplitC2PSA) for each in split.modules()) == ("v8" not in name)
    images = pictures(1, 64)
    with torch.no_grad():
        assert torch.equal(split(images)[0], model(images)[0])
        assert float(distance(split(images), model(images))) == 0
    before, fixed = channels.macs_and_parameters(split, 64)[0], last_convolutions(split)
    shapes_before = [tuple(each.weight.shape[:1]) for each in fixed]
    assert channels.take_away(split, images, 0.9 * before, lambda: None)
    assert channels.macs_and_parameters(split, 64)[0] <= 0.9 * before
    assert [tuple(each.weight.shape[:1]) for each in fixed] == shapes_before
    with torch.no_grad():
        assert split(images)[0].shape == model(images)[0].shape


def test_measured_damage_beats_norms_alone(
    trained: Trained, data: Data, monkeypatch: pytest.MonkeyPatch
) -> None:
    from kedge_builder.compress.qat import _batch

    seen, unseen = _batch(data.calibrate[:4], SIZE), _batch(data.gate[:8], SIZE)
    apart = []
    for scales in (channels._scales, lambda *_: {}):
        monkeypatch.setattr(channels, "_scales", scales)
        model = split_csp(trained.model)
        macs = channels.macs_and_parameters(model, SIZE)[0]
        channels.take_away(model, seen, 0.9 * macs, lambda: None)
        with torch.no_grad():
            apart.append(float(distance(model(unseen), trained.model(unseen))))
    assert apart[0] < 0.5 * apart[1]


def test_a_pruned_model_survives_a_file_and_exports_the_same_bytes(
    trained: Trained, tmp_path: Path
) -> None:
    model = split_csp(trained.model)
    macs = channels.macs_and_parameters(model, 64)[0]
    channels.take_away(model, pictures(size=64), 0.8 * macs, lambda: None)
    fixed = {id(each) for each in channels.fixed_layers(model)}
    free = [each for each in model.modules()
            if isinstance(each, torch.nn.Conv2d) and id(each) not in fixed]  # fmt: skip
    assert {each.out_channels % channels.ROUND_TO for each in free if each.out_channels > 1} == {0}
    checkpoint.save(model, tmp_path / "pruned.pt", size=SIZE)
    again = load(tmp_path / "pruned.pt")
    assert again.classes == trained.classes
    with torch.no_grad():
        assert torch.equal(again.model(pictures())[0], model.eval()(pictures())[0])
    assert export.to_onnx(again.model, SIZE) == export.to_onnx(model, SIZE)
    assert [each.name for each in tmp_path.iterdir()] == ["pruned.pt"]


def test_a_checkpoint_may_name_our_blocks_and_no_other_class_of_ours(tmp_path: Path) -> None:
    path = tmp_path / "foreign.pt"
    torch.save({"model": PruneOptions(macs=0.5)}, path)
    with pytest.raises(InputError, match=r"they want kedge_builder\.compress\.chain"):
        load(path)


class Workshop:
    """Counts trainings and hands out scores, falling by ``losses``."""

    def __init__(self, *losses: float, die_at: int = 0) -> None:
        self.losses, self.die_at = losses, die_at
        self.trainings = self.scores = 0
        self.rates: list[float] = []
        self.trained_at: list[int] = []

    def train(self, trained: Trained, *rest: Any, **_: Any) -> Path:
        self.trainings += 1
        if self.trainings == self.die_at:
            raise KeyboardInterrupt
        out: Path = rest[2]
        self.rates.append(rest[1].lr)
        self.trained_at.append(rest[1].size)
        checkpoint.save(trained.model, out, size=SIZE)
        return out

    def score(self, trained: Trained, *_: Any) -> float:
        parameters = sum(each.numel() for each in trained.model.parameters())
        self.scores += 1
        return self.by_size(parameters)

    def by_size(self, parameters: int) -> float:
        steps = sorted({parameters, *getattr(self, "sizes", set())}, reverse=True)
        self.sizes = set(steps)
        return 0.9 - (0, *self.losses)[steps.index(parameters)]


Runner = Callable[..., Any]


@pytest.fixture
def run(trained: Trained, data: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Runner:
    """Runs a chain at a small size, by norms alone: only its book-keeping is looked at."""
    monkeypatch.setattr(channels, "_scales", lambda *_: {})

    def go(workshop: Workshop, **changes: Any) -> Any:
        options = replace(PruneOptions(macs=0.7, step=0.1, epochs=1, size=64), **changes)
        return prune(trained, data, options, tmp_path / "cache", QUIET,
                     score=workshop.score, train=workshop.train)  # fmt: skip

    return go


def test_a_collapsed_step_is_thrown_away_and_the_last_good_one_kept(run: Runner) -> None:
    result = run(Workshop(0.005, 0.3, 0.3), max_drop=0.02)
    assert [round(each.map50_95, 3) for each in result.steps] == [0.9, 0.895]
    assert result.best == result.steps[1].path
    assert 0.8 < result.steps[1].kept <= 0.9
    assert "to 80% of the MACs" in result.stopped
    assert "0.900 before, 0.600 now" in result.stopped


class Patient(Workshop):
    """Its first step loses ten points and wins back what ``rounds`` of training bring."""

    def __init__(self, *rounds: float) -> None:
        super().__init__()
        self.rounds = iter((0.9, 0.8, *rounds))  # start, pruned, each training

    def score(self, trained: Trained, *_: Any) -> float:
        self.scores += 1
        return next(self.rounds)


def test_a_step_that_lost_too_much_is_trained_on_while_that_helps(run: Runner) -> None:
    workshop = Patient(0.85, 0.87, 0.885, 0.885, 0.885)
    result = run(workshop, macs=0.8, max_drop=0.02)
    assert [each.map50_95 for each in result.steps] == [0.9, 0.885, 0.885]
    assert [each.rounds for each in result.steps] == [1, 3, 1]
    assert workshop.rates == pytest.approx([3e-4, 6e-4, 6e-4, 3e-4])
    assert not result.stopped
    assert not list(result.best.parent.glob("*trained*"))
    again = Patient()
    assert run(again, macs=0.8, max_drop=0.02) == result
    assert again.trainings == 0


def test_a_round_that_gains_next_to_nothing_is_the_last(run: Runner) -> None:
    workshop = Patient(0.85, 0.854)
    result = run(workshop, macs=0.9, max_drop=0.02)
    assert workshop.trainings == 2
    assert "0.900 before, 0.854 now" in result.stopped
    assert len(result.steps) == 1


def test_a_step_that_may_lose_more_goes_on_from_its_first_round(run: Runner) -> None:
    """A chain with another bound has other steps from there on, and both are kept."""
    strict = run(Patient(0.85, 0.885, 0.885, 0.885), macs=0.8, max_drop=0.02)
    loose = run(Patient(0.86, 0.86), macs=0.8, max_drop=0.1)
    assert [each.rounds for each in loose.steps] == [1, 1, 1]
    assert loose.steps[1].map50_95 == 0.85
    assert loose.steps[2].path != strict.steps[2].path


def test_a_killed_chain_repeats_no_whole_step(run: Runner) -> None:
    killed = Workshop(0.0, 0.0, 0.0, die_at=2)
    with pytest.raises(KeyboardInterrupt):
        run(killed)
    workshop = Workshop(0.0, 0.0, 0.0)
    workshop.sizes = killed.sizes
    first = run(workshop)
    assert workshop.trainings == 2
    again = Workshop()
    second = run(again)
    assert (again.trainings, again.scores) == (0, 0)
    assert second == first


def test_a_training_that_does_harm_is_not_kept(run: Runner) -> None:
    class Harmful(Workshop):
        def score(self, trained: Trained, *_: Any) -> float:
            self.scores += 1
            return (0.9, 0.89, 0.5)[self.scores - 1]  # start, pruned, pruned and trained

    result = run(Harmful(), macs=0.9)
    assert result.steps[1].map50_95 == 0.89
    assert not list(result.best.parent.glob("*trained*"))


@pytest.mark.parametrize(("scores", "at"), [((0.85, 0.87), 128), ((0.87, 0.85), 160)])
def test_the_first_step_tells_which_size_is_better_to_train_at(
    run: Runner, scores: tuple[float, float], at: int
) -> None:
    workshop = Patient(*scores, 0.8, 0.89)
    result = run(workshop, macs=0.8, size=160, max_drop=0.2)
    assert workshop.trained_at == [160, 128, at]
    assert [each.trained_px for each in result.steps] == [0, at, at]
    assert result.steps[1].map50_95 == 0.87, "and is the better one itself"
    assert not list(result.best.parent.glob("*trained*"))
    deeper = Patient(0.8, 0.88)
    deeper.rounds = iter((0.8, 0.88))
    assert run(deeper, macs=0.7, size=160, max_drop=0.2).steps[:3] == result.steps
    assert deeper.trained_at == [at], "the record says it to a later run"


def test_a_step_that_training_did_not_help_tells_no_size(run: Runner) -> None:
    workshop = Patient(0.7, 0.7, 0.8, 0.89, 0.85)
    result = run(workshop, macs=0.8, size=160, max_drop=0.2)
    assert workshop.trained_at == [160, 128, 160, 128]
    assert [each.trained_px for each in result.steps] == [0, 0, 160]


def test_a_deeper_chain_takes_up_the_shallow_one(run: Runner) -> None:
    workshop = Workshop(0.0, 0.0, 0.0)
    shallow = run(workshop, macs=0.8)
    deep = run(workshop, macs=0.7)
    assert deep.steps[:3] == shallow.steps
    assert workshop.trainings == 3


def test_other_options_begin_a_chain_of_their_own(run: Runner) -> None:
    workshop = Workshop(0.0)
    run(workshop, macs=0.9)
    other = Workshop(0.0)
    run(other, macs=0.9, epochs=2)
    assert other.trainings == 1


def test_a_step_whose_file_was_altered_is_made_again(run: Runner) -> None:
    result = run(Workshop(0.0), macs=0.9)
    shutil.copyfile(FIXTURE, result.best)
    workshop = Workshop(0.0)
    run(workshop, macs=0.9)
    assert workshop.trainings == 1


def test_collapse_is_judged_against_the_start() -> None:
    assert not collapsed(0.6, 0.58, 0.0201)
    assert "0.600 before, 0.580 now" in collapsed(0.6, 0.58, 0.019)


@pytest.mark.parametrize(
    ("macs", "step", "targets"),
    [(0.5, 0.1, (0.9, 0.8, 0.7, 0.6, 0.5)), (0.75, 0.1, (0.9, 0.8, 0.75)), (0.98, 0.1, (0.98,))],
)
def test_targets_fall_by_steps(macs: float, step: float, targets: tuple[float, ...]) -> None:
    assert PruneOptions(macs=macs, step=step).targets() == targets


@pytest.mark.parametrize("changes", [{"macs": 1.0}, {"macs": 0.01}, {"step": 0.0}, {"epochs": 0}])
def test_options_out_of_range_are_named(run: Runner, changes: dict[str, Any]) -> None:
    with pytest.raises(InputError):
        run(Workshop(), **changes)
