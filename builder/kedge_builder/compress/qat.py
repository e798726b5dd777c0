"""Teaches weights to bear quantization: short training with distillation, no labels.

Every convolution outside of the float zone sees its weights and its input rounded as INT8 would
round them, gradients pass straight through (Jacob et al., CVPR 2018), and the loss is the
distance to the float model's answers on calibration images. Afterwards the rounding is taken out
again: what is left are ordinary float weights in the same architecture, which any runtime's own
quantizer can take.

Why torch's operators and no library on top: NNCF's and ModelOpt's training leave the model in
their own quantized form, one runtime's grid, and cannot be undone to plain weights;
``torch.ao``'s eager mode wants fused modules of its own and is deprecated. What is needed here is
``torch.fake_quantize_*`` (which carry the straight-through gradient) hung on with torch's own
parametrizations and hooks, and taken off again.

Normalization stays, with its statistics frozen. Runtimes fold it into the weights, which scales
each output channel; rounding is symmetric with a scale for each channel, so rounding before and
after the folding is the same.
"""

from __future__ import annotations

import copy
import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn.utils import parametrize

from kedge_builder.compress.response import distance, last_convolutions
from kedge_builder.data.datasets import Sample
from kedge_builder.models.checkpoint import weights_sha256
from kedge_builder.models.weights import Trained
from kedge_builder.progress import Progress
from kedge_shared.errors import InputError
from kedge_shared.manifest import InputSpec
from kedge_shared.vision import prepare

#: One image of so many is kept from training, to see whether it helped.
_HELD_OUT = 5
_LEAST_IMAGES = 8
#: Images that activation ranges are taken from.
_RANGED = 32


@dataclass(frozen=True, kw_only=True)
class QatOptions:
    """How to train.

    Attributes:
        size: Input pixels.
        steps: Updates.
        batch: Images an update.
        lr: Learning rate at the start; a cosine takes it to nothing.
        weight_bits: 8, or 7 for kernels that saturate (``reduce_range``).
        seed: Of the order of images.
    """

    size: int
    steps: int = 300
    batch: int = 8
    lr: float = 2e-5
    weight_bits: int = 8
    seed: int = 0


def adapt(
    trained: Trained, images: Sequence[Sample], options: QatOptions, progress: Progress
) -> Trained:
    """Returns the model with weights that bear quantization better.

    Args:
        trained: Float model, pruned or not; left as it is, and the teacher.
        images: For calibration and training; their labels are not read.
        options: How.
        progress: Shows updates and the time left.

    Returns:
        The same architecture in float; ``trained`` itself where training did not bring rounded
        answers nearer to the float ones on images kept apart. ``sha256`` is of the weights.

    Raises:
        InputError: Too few images.
    """
    if len(images) < _LEAST_IMAGES:
        raise InputError(f"{len(images)} images are too few to train for quantization on",
                         f"give {_LEAST_IMAGES} at the least")  # fmt: skip
    held = list(images[::_HELD_OUT])
    seen = [each for at, each in enumerate(images) if at % _HELD_OUT]
    torch.manual_seed(options.seed)
    teacher = copy.deepcopy(trained.model).eval()
    student = copy.deepcopy(trained.model).eval()
    with rounded(student, [_batch([each], options.size) for each in seen[:_RANGED]], options):
        before = _apart(student, teacher, held, options)
        _teach(student, teacher, seen, options, progress)
        after = _apart(student, teacher, held, options)
    if not after < before:
        return trained
    return Trained(student, trained.classes, weights_sha256(student))


def quantized_convolutions(model: Any) -> list[Any]:
    """Returns the convolutions outside of the float zone, found by structure."""
    from ultralytics.nn.modules.block import DFL

    kept = {id(each) for each in last_convolutions(model)}
    kept |= {id(part) for each in model.modules() if isinstance(each, DFL)
             for part in each.modules()}  # fmt: skip
    return [
        each for each in model.modules() if isinstance(each, nn.Conv2d) and id(each) not in kept
    ]


@contextmanager
def rounded(model: Any, batches: Sequence[Any], options: QatOptions) -> Iterator[None]:
    """Rounds a model's weights and activations as INT8 does, for a while.

    Args:
        model: Detector, changed in place and back; updates of its weights remain.
        batches: Inputs (1, 3, size, size) that ranges are taken from.
        options: ``weight_bits`` is read.
    """
    convolutions = quantized_convolutions(model)
    ranges = _ranges(model, convolutions, batches)
    hooks = []
    for each, (low, high) in zip(convolutions, ranges, strict=True):
        parametrize.register_parametrization(each, "weight", _RoundedWeight(options.weight_bits))
        hooks.append(each.register_forward_pre_hook(_RoundedInput(low, high)))
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
        for each in convolutions:
            parametrize.remove_parametrizations(each, "weight", leave_parametrized=False)


class _RoundedWeight(nn.Module):  # type: ignore[misc]
    """Symmetric, a scale for each output channel."""

    def __init__(self, bits: int) -> None:
        super().__init__()
        self._top = 2 ** (bits - 1) - 1

    def forward(self, weight: Any) -> Any:
        """Maps a weight (out, in, k, k) to its rounded self."""
        scale = weight.detach().flatten(1).abs().amax(1).clamp(min=1e-12) / self._top
        zero = torch.zeros_like(scale, dtype=torch.int32)
        return torch.fake_quantize_per_channel_affine(weight, scale, zero, 0, -self._top, self._top)


class _RoundedInput:
    """Unsigned, one scale for the tensor; zero is exact, for padding."""

    def __init__(self, low: float, high: float) -> None:
        low, high = min(low, 0.0), max(high, 0.0)
        self._scale = max(high - low, 1e-12) / 255
        self._zero = round(-low / self._scale)

    def __call__(self, module: Any, given: tuple[Any, ...]) -> tuple[Any, ...]:
        first = torch.fake_quantize_per_tensor_affine(given[0], self._scale, self._zero, 0, 255)
        return (first, *given[1:])


def _ranges(
    model: Any, convolutions: Sequence[Any], batches: Sequence[Any]
) -> list[tuple[float, float]]:
    """Returns each convolution's input range: the mean over images of least and most."""
    found: dict[int, list[tuple[float, float]]] = {id(each): [] for each in convolutions}

    def look(module: Any, given: tuple[Any, ...]) -> None:
        found[id(module)].append((float(given[0].min()), float(given[0].max())))

    hooks = [each.register_forward_pre_hook(look) for each in convolutions]
    with torch.no_grad():
        for batch in batches:
            model(batch)
    for hook in hooks:
        hook.remove()
    # A branch that inference leaves out (YOLO26's second head when fused) has seen nothing.
    seen = [found[id(each)] or [(0.0, 1.0)] for each in convolutions]
    return [
        (sum(low for low, _ in each) / len(each), sum(high for _, high in each) / len(each))
        for each in seen
    ]


def _teach(
    student: Any, teacher: Any, images: Sequence[Sample], options: QatOptions, progress: Progress
) -> None:
    wanted = [each.requires_grad_() for each in student.parameters() if each.is_floating_point()]
    optimizer = torch.optim.AdamW(wanted, lr=options.lr, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, options.steps)
    draw = random.Random(options.seed)  # noqa: S311 - an order of images, not a secret
    with progress.stage("training for quantization", options.steps) as tick:
        for _ in range(options.steps):
            batch = _batch(draw.sample(images, min(options.batch, len(images))), options.size)
            with torch.no_grad():
                answer = teacher(batch)
            optimizer.zero_grad()
            distance(student(batch), answer).backward()
            optimizer.step()
            schedule.step()
            tick()


def _apart(student: Any, teacher: Any, images: Sequence[Sample], options: QatOptions) -> float:
    """Returns the mean distance of the answers, image by image."""
    with torch.no_grad():
        batches = (_batch([each], options.size) for each in images)
        return sum(float(distance(student(b), teacher(b))) for b in batches) / len(images)


def _batch(samples: Sequence[Sample], size: int) -> Any:
    given = InputSpec(height=size, width=size)
    return torch.cat([torch.from_numpy(prepare(each.frame(), given)[0]) for each in samples])
