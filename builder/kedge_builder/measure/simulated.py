"""Engines of boards whose vendor brings a simulator: accuracy without the board, never time."""

from __future__ import annotations

import weakref
from pathlib import Path

from kedge_builder.compilers import rknn
from kedge_builder.compilers.environment import python_of
from kedge_builder.progress import Progress
from kedge_shared import heads, wire
from kedge_shared.detections import Array
from kedge_shared.errors import InputError

_RECIPE_LIMIT_BYTES = 1024 * 1024


class SimulatedRknn:
    """An RKNN model in the simulator of the toolkit that made it.

    The simulator cannot read ``.rknn`` files: it runs what they are compiled from, which lies
    beside a model while it is being built.

    Args:
        path: The model.

    Raises:
        InputError: What it was made of is not beside it.
    """

    def __init__(self, path: Path) -> None:
        folder = path.with_suffix(rknn.SIMULATION)
        if not (folder / rknn.RECIPE).is_file():
            raise InputError(
                f"{path} cannot be simulated: what it was compiled from is gone",
                "leave --previous out for a class that is simulated",
            )
        data = wire.read_limited(folder / rknn.RECIPE, "recipe", _RECIPE_LIMIT_BYTES)
        self._recipe = wire.decode(data, rknn.Recipe, "recipe")
        python = python_of(rknn.PINS, Progress(quiet=True))
        self._worker = rknn.simulate(python, self._recipe, folder)
        weakref.finalize(self, self._worker.close)

    def infer(self, batch: Array) -> Array:
        """Runs one batch."""
        image = heads.to_bytes(batch, self._recipe.given).transpose(0, 2, 3, 1)
        return heads.join(self._worker.infer(image), self._recipe.given, self._recipe.read)
