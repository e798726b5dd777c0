"""What a build is asked to do."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path

from kedge_shared.device_classes import Budgets, DeviceClass
from kedge_shared.errors import InputError
from kedge_shared.ids import check_name

#: Larger inputs are a slip of the finger: 4096 px square is 200 MB for one batch of floats.
_LARGEST_INPUT = 4096
#: What an override may name: budgets, and a build that its data could not decide.
OVERRIDABLE = (*(each.name for each in fields(Budgets)), "speed", "undecided")


@dataclass(frozen=True, kw_only=True)
class BuildOptions:
    """Options of one ``kedge build``.

    Attributes:
        weights: Trained checkpoint.
        data: ``data.yaml``.
        classes: Device classes to build for.
        out: Folder for the builds.
        model: Name of the model.
        release: Version.
        release_counter: Order of releases.
        policy: Model policy, or ``None`` to propose one.
        input_size: Pixels instead of the class's.
        overrides: Budget → reason.
        images: Gate images at the most; ``None`` is all.
        seed: Of every draw.
        latency_seconds: Time spent on timing, per class.
    """

    weights: Path
    data: Path
    classes: Sequence[DeviceClass]
    out: Path
    model: str
    release: str
    release_counter: int
    policy: Path | None = None
    input_size: int | None = None
    overrides: Mapping[str, str] = field(default_factory=dict)
    images: int | None = None
    seed: int = 0
    latency_seconds: float = 6.0

    def check(self) -> None:
        """Checks what can be told before anything is read.

        Raises:
            InputError: An option is out of bounds, or a class is named twice.
        """
        names = [each.name for each in self.classes]
        twice = sorted({each for each in names if names.count(each) > 1})
        if twice:
            raise InputError(f"device class {twice[0]} is given twice", "name each once")
        if self.input_size is not None and not 32 <= self.input_size <= _LARGEST_INPUT:
            raise InputError(
                f"input size {self.input_size} is not between 32 and {_LARGEST_INPUT} pixels"
            )
        if self.images is not None and self.images < 1:
            raise InputError(f"{self.images} images cannot judge a build", "leave --images out")
        if self.release_counter < 1:
            raise InputError(f"release counter {self.release_counter} is below 1")

    def recipe(self, device_class: DeviceClass) -> dict[str, str]:
        """Returns what the manifest records of the options."""
        return {
            "form": device_class.form,
            "input_size": str(self.size(device_class)),
            "seed": str(self.seed),
            "reduce_range": str(device_class.reduce_range).lower(),
        }

    def size(self, device_class: DeviceClass) -> int:
        """Returns the input size for a class, pixels."""
        return self.input_size or device_class.input_size


def read_overrides(given: Sequence[str]) -> dict[str, str]:
    """Reads ``["latency_p95_ms=accepted for the pilot"]``.

    Raises:
        InputError: Not BUDGET=REASON, or no such budget.
    """
    found: dict[str, str] = {}
    for each in given:
        budget, _, reason = each.partition("=")
        if budget not in OVERRIDABLE or len(reason.strip()) < 3:
            raise InputError(
                f"override {each!r} is not BUDGET=REASON", f"budgets: {', '.join(OVERRIDABLE)}"
            )
        found[budget] = reason.strip()
    return found


def model_name(weights: Path) -> str:
    """Returns a model's name made of the checkpoint's file name."""
    return check_name("model", re.sub(r"[^a-z0-9._-]+", "-", weights.stem.lower()).strip("-._"))


def default_counter() -> int:
    """Returns the release counter of a build made now: Unix time, so that later is higher."""
    return int(time.time())
