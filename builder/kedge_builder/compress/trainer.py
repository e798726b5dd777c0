"""Ultralytics' training loop around a network that it did not build.

Its trainer makes the full network from YAML and copies what weights fit, which undoes pruning
silently. Here ``get_model`` hands back the module as given, and nothing is written but what the
caller saves.
"""

from __future__ import annotations

from typing import Any

from ultralytics.models.yolo.detect import DetectionTrainer

from kedge_builder.compress.response import distance


class KeepingTrainer(DetectionTrainer):  # type: ignore[misc]
    """Trains a module in place; its running average is in ``ema.ema`` afterwards.

    Args:
        model: What to train.
        overrides: Ultralytics' options.
        teacher: Model to learn from besides the labels, or ``None``.
        weight: Of the teacher's share in the loss.
    """

    def __init__(
        self, model: Any, overrides: dict[str, Any], *, teacher: Any = None, weight: float = 1.0
    ) -> None:
        self._given, self._teacher, self._weight = model, teacher, weight
        # A name that is never read: it must merely look like an architecture.
        super().__init__(overrides={**overrides, "model": "kept.yaml"})
        if teacher is not None:
            self.add_callback("on_train_start", KeepingTrainer._listen)

    def get_model(self, cfg: Any = None, weights: Any = None, verbose: bool = True) -> Any:
        """Returns the module as it was given."""
        return self._given

    def validate(self) -> tuple[dict[str, float], float]:
        """Measures nothing: the caller does, through the pre-processing that boards use."""
        return {}, 0.0

    def final_eval(self) -> None:
        """Measures nothing."""

    def save_model(self) -> bool:
        """Saves nothing; Ultralytics' checkpoints hold half-precision weights and local paths."""
        return False

    def _listen(self) -> None:
        teacher = self._teacher.to(self.device).eval()
        self.model.criterion = _Taught(self.model.init_criterion(), teacher, self._weight)


class _Taught:
    """A loss with a teacher's answers in it; all else is the loss it wraps."""

    def __init__(self, own: Any, teacher: Any, weight: float) -> None:
        self._own, self._teacher, self._weight = own, teacher, weight

    def __call__(self, output: Any, batch: dict[str, Any]) -> tuple[Any, Any]:
        import torch

        loss, items = self._own(output, batch)
        with torch.no_grad():
            wanted = self._teacher(batch["img"])
        # Ultralytics' losses are means times the batch: so is this one.
        taught = distance(output, wanted) * self._weight * len(batch["img"])
        return torch.cat([loss.reshape(-1), taught.reshape(1)]), items

    def __getattr__(self, name: str) -> Any:
        return getattr(self._own, name)
