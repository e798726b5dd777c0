"""Refits the last convolutions to what quantized layers give them. Pure.

They stay float (the float zone), so their weights are free: nothing rounds them. But their inputs
come out of quantized layers, a little shifted and a little shrunk, and weights that were right for
float inputs are not the best for these. One Newton step of the distillation loss, the divergence of
the engine's answers from float's on calibration images, is a weighted ridge regression in closed
form (iteratively reweighted least squares; McCullagh and Nelder, Generalized Linear Models, 2.5):
no labels, no training, no cost on the board.

Too few images teach noise, more so with 80 classes than with six. So each convolution is fitted by
four-fold cross-validation over images for several strengths of the pull to its old weights, and
keeps them where none brings the answers on the images left out nearer to float's.

DeepPCB, YOLOv8n at 320 px, ONNX Runtime, 100 images that judge: 0.93 points of mAP50-95 lost become
0.45 (MSE ranges), 0.61 become 0.38 (min-max). NNCF and onnxruntime correct means of biases alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from kedge_shared.detections import Array

Float64: TypeAlias = npt.NDArray[np.float64]
#: What a last convolution feeds: class logits; DFL's distribution over 16 distances for each of
#: four sides; or four bare distances (YOLO26).
Kind = Literal["class", "dfl", "distance"]

#: Strengths of the pull to the old weights, as multiples of the mean curvature.
PULLS = (0.03, 0.1, 0.3, 1.0, 3.0, 10.0)
_FOLDS = 4
#: Fewer positions than this teach nothing.
_LEAST = 50
#: The curvature of a class that hardly occurs is taken for a tenth of the mean one: rare classes
#: are pulled to their old weights all the more.
_RARE = 0.1
#: The bias has one unknown a channel and bears more freedom.
_BIAS_PULL = 0.1
#: New weights must bring the images left out nearer by this, or it is chance and rounding.
_WORTH = 0.98
#: A mean divergence under this is rounding.
_NOTHING = 1e-6
_SIDES = 4


@dataclass(frozen=True)
class Positions:
    """What one convolution reads in the engine and says in float, where something may be.

    Attributes:
        features: (n, channels in) of the engine.
        answers: (n, channels out) of float.
        scores: (n,) float's best class score there.
        images: (n,) index of the image.
    """

    features: Array
    answers: Array
    scores: Array
    images: npt.NDArray[np.int64]


@dataclass(frozen=True)
class Fit:
    """Outcome for one convolution.

    Attributes:
        weights: (channels out, channels in).
        bias: (channels out,).
        left: Divergence on images left out, as a share of what it was with the old weights; 1 if
            these stay.
    """

    weights: Array
    bias: Array
    left: float


def fit(kind: Kind, weights: Array, bias: Array, seen: Positions) -> Fit:
    """Fits one convolution.

    Args:
        kind: What it feeds.
        weights: (channels out, channels in), the 1x1 kernel.
        bias: (channels out,).
        seen: Calibration images.
    """
    old = Fit(weights, bias, 1.0)
    known = set(seen.images.tolist())
    if len(seen.features) < _LEAST or len(known) < _FOLDS:
        return old
    task = _Task(kind, seen)
    start = np.vstack([weights.T, bias[None]]).astype(np.float64)
    lost = np.zeros(len(PULLS) + 1)
    for fold in range(_FOLDS):
        out = seen.images % _FOLDS == fold
        fitted = [start, *task.step(start, ~out, PULLS)]
        lost += [task.loss(each, out) for each in fitted]
    best = int(lost.argmin())
    if lost[0] < _NOTHING * len(seen.features) or lost[best] > _WORTH * lost[0]:
        return old
    (new,) = task.step(start, np.ones(len(seen.features), bool), PULLS[best - 1 : best])
    return Fit(
        np.ascontiguousarray(new[:-1].T, np.float32),
        np.asarray(new[-1], np.float32),
        float(lost[best] / lost[0]),
    )


class _Task:
    """The distillation loss of one convolution; parameters are (channels in + 1, out)."""

    def __init__(self, kind: Kind, seen: Positions) -> None:
        self._kind = kind
        ones = np.ones((len(seen.features), 1))
        self._inputs = np.hstack([seen.features.astype(np.float64), ones])
        self._answers = seen.answers.astype(np.float64)
        # A class is judged at every position, a box only as far as something is there.
        self._weight = ones if kind == "class" else seen.scores.astype(np.float64)[:, None]

    def loss(self, parameters: Float64, rows: npt.NDArray[np.bool_]) -> float:
        """Returns the divergence of the answers from float's, summed over ``rows``."""
        said, wanted = self._inputs[rows] @ parameters, self._answers[rows]
        if self._kind == "distance":
            each = (said - wanted) ** 2
        elif self._kind == "class":
            p = _sigmoid(wanted)
            each = np.logaddexp(0, said) - np.logaddexp(0, wanted) - p * (said - wanted)
        else:
            p = _softmax(wanted)
            each = p * (np.log(p + 1e-12) - np.log(_softmax(said) + 1e-12))
        return float((self._weight[rows] * each).sum())

    def step(
        self, start: Float64, rows: npt.NDArray[np.bool_], pulls: Sequence[float]
    ) -> list[Float64]:
        """Returns the parameters after one Newton step from ``start``, for each pull."""
        inputs, wanted = self._inputs[rows], self._answers[rows]
        said = inputs @ start
        if self._kind == "distance":
            gap, curve = wanted - said, np.ones_like(said)
        else:
            share = _sigmoid if self._kind == "class" else _softmax
            p = share(wanted)
            gap, curve = p - share(said), p * (1 - p)
        gap, curve = gap * self._weight[rows], curve * self._weight[rows]
        return _solved(start, inputs, gap, curve, pulls)


def _solved(
    start: Float64, inputs: Float64, gap: Float64, curve: Float64, pulls: Sequence[float]
) -> list[Float64]:
    """Solves for each output channel; bins of one softmax are treated as if they were apart."""
    width = inputs.shape[1] - 1
    toward = inputs.T @ gap
    energy = curve.T @ (inputs[:, :-1] ** 2).sum(axis=1) / max(width, 1)
    energy = np.maximum(energy, _RARE * energy.mean())
    mass = curve.sum(axis=0)
    mass = _BIAS_PULL * np.maximum(mass, _RARE * mass.mean())
    found = [start.copy() for _ in pulls]
    for channel in range(start.shape[1]):
        curvature = (inputs * curve[:, channel : channel + 1]).T @ inputs
        for parameters, pull in zip(found, pulls, strict=True):
            held = np.diag(np.append(np.full(width, energy[channel]), mass[channel]) * pull + 1e-9)
            parameters[:, channel] += np.linalg.solve(curvature + held, toward[:, channel])
    return found


def _sigmoid(logits: Float64) -> Float64:
    return np.asarray(1 / (1 + np.exp(-np.clip(logits, -60, 60))))


def _softmax(logits: Float64) -> Float64:
    """Over the bins of each side; (n, 4 x bins) → the same shape."""
    bins = logits.reshape(len(logits), _SIDES, -1)
    bins = np.exp(bins - bins.max(axis=-1, keepdims=True))
    return np.asarray((bins / bins.sum(axis=-1, keepdims=True)).reshape(logits.shape))
