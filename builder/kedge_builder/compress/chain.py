"""What a chain of pruning steps goes by and leaves behind. Decides; the work is in ``prune``."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from kedge_shared.errors import InputError

#: Times that a step which lost too much is trained on before it is given up, and the mAP50-95 that
#: a round must gain to be worth another.
MORE_ROUNDS, WORTHWHILE = 3, 0.005
#: Times the learning rate of such a round. A model that lost much has far to go: DeepPCB at 38 % of
#: its MACs went from 0.571 to 0.601 at 1e-4, to 0.609 at 3e-4, to 0.610 at 6e-4.
FASTER = 2.0
#: Share of the input size that steps are trained at where that turns out better, and the least that
#: multiples of the stride may make of it. Classifiers gain by smaller images in training than later
#: (Touvron et al., "Fixing the train-test resolution discrepancy", NeurIPS 2019); whether for the
#: same reason was not looked into. DeepPCB at 48 % of its MACs and 320 px, six epochs from 0.657:
#: 0.646 when trained at 320 px, 0.686 at 288.
SMALLER, _SMALLEST = 0.9, 0.8
#: Below this share of its MACs no detector that we have seen recovers.
_LEAST = 0.05


@dataclass(frozen=True, kw_only=True)
class PruneOptions:
    """How to prune.

    Attributes:
        macs: Share of the multiply-accumulates to keep, 0..1.
        step: Share of the unpruned model's MACs that one step takes; 0.05 to 0.1 recovers best.
        epochs: Of fine-tuning after each step.
        size: Input pixels.
        max_drop: mAP50-95 that may be lost on the select split, a fraction of one; a step that
            loses more is thrown away and ends the chain.
        seed: Of every draw.
        lr: Learning rate of fine-tuning. A step that gets worse keeps the weights it had.
        batch: Images a training step.
    """

    macs: float
    step: float = 0.1
    epochs: int = 10
    size: int = 640
    max_drop: float = 0.02
    seed: int = 0
    lr: float = 3e-4
    batch: int = 16

    def check(self) -> None:
        """Raises InputError if an option is out of its range."""
        if not _LEAST <= self.macs < 1:
            raise InputError(f"{self.macs:g} of the MACs cannot be kept",
                             f"give a share from {_LEAST} to below 1")  # fmt: skip
        if not 0.01 <= self.step <= 0.5:
            raise InputError(f"a step of {self.step:g} is none", "give 0.01 to 0.5, best 0.05-0.1")
        if self.epochs < 1 or self.batch < 2:
            raise InputError("each step needs an epoch and batches of two at the least")

    def targets(self) -> tuple[float, ...]:
        """Returns the share of MACs to keep after each step, falling."""
        full = int((1 - self.macs) / self.step + 1e-9)
        found = [round(1 - self.step * at, 6) for at in range(1, full + 1)]
        if not found or found[-1] - self.macs > 1e-6:
            found.append(self.macs)
        return tuple(found)

    def trained_at(self, stride: int) -> tuple[int, ...]:
        """Returns the sizes to try training at, pixels: the input's, and a smaller one if there is.

        Args:
            stride: Of the model's coarsest output; sizes are multiples of it.
        """
        smaller = int(self.size * SMALLER + 1e-9) // stride * stride
        return (self.size, smaller) if smaller >= self.size * _SMALLEST else (self.size,)

    def recipe(self) -> dict[str, float]:
        """Returns what a step's result depends on.

        Without the target and the bound: a chain that goes deeper takes up one that stopped.
        """
        names = ("epochs", "size", "seed", "lr", "batch")
        return {name: getattr(self, name) for name in names} | {"smaller": SMALLER}


@dataclass(frozen=True)
class PruneStep:
    """One step of a chain.

    Attributes:
        path: Checkpoint.
        target: Share of the MACs it was to keep.
        kept: Share of the MACs that it keeps.
        macs: Multiply-accumulates for one image.
        parameters: Number.
        map50_95: On the select split.
        seconds: That pruning, training and measuring took.
        sha256: Of the checkpoint.
        rounds: How often it was trained for :attr:`PruneOptions.epochs`.
        trained_px: Size of the images that it was trained on, pixels; 0 is that training did no
            good, and it has the weights that pruning left.
    """

    path: Path
    target: float
    kept: float
    macs: int
    parameters: int
    map50_95: float
    seconds: float
    sha256: str
    rounds: int = 1
    trained_px: int = 0


@dataclass(frozen=True)
class PruneResult:
    """What a chain came to.

    Attributes:
        steps: All that are good, the unpruned model first.
        best: Checkpoint of the smallest.
        stopped: Why the chain ended before its target; empty if it did not.
    """

    steps: tuple[PruneStep, ...]
    best: Path
    stopped: str = ""


def root_key(weights: str, data: str, recipe: Mapping[str, float], tools: Sequence[str]) -> str:
    """Returns the key of a chain's start: a digest of all that its steps depend on."""
    return _digest([weights, data, dict(recipe), list(tools)])


def step_key(before: str, target: float) -> str:
    """Returns the key of the step that goes from another step to ``target``."""
    return _digest([before, target])


def longer_key(key: str) -> str:
    """Returns the key of the same step after one more round of training."""
    return _digest([key, "trained on", FASTER])


def collapsed(start: float, now: float, max_drop: float) -> str:
    """Says why a step is to be thrown away; empty when it is good.

    Args:
        start: mAP50-95 of the unpruned model on the select split.
        now: Of the step.
        max_drop: Allowed loss.
    """
    if start - now <= max_drop:
        return ""
    return f"mAP50-95 on the select split: {start:.3f} before, {now:.3f} now"


def _digest(parts: list[object]) -> str:
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]
