"""One's own data set for the demo: copies of it, as it is and with the labels swapped."""

from __future__ import annotations

import shutil
from pathlib import Path

import yaml

from kedge_builder.data.datasets import Data, Sample
from kedge_shared.errors import InputError


def copy_data(found: Data, out: Path, *, shift: int = 0) -> Path:
    """Copies what the demo needs of a data set: training leaves caches beside the labels.

    Args:
        found: The data set.
        out: New folder.
        shift: Every class is called by the name that comes so much later; 0 keeps the labels.

    Returns:
        The copy's ``data.yaml``.

    Raises:
        InputError: Labels of a single class cannot be swapped.
    """
    if shift % len(found.classes) == 0 and shift:
        raise InputError("data with one class has no labels to swap for release 1.3")
    for split, samples in (("train", (*found.calibrate, *found.select)), ("val", found.gate)):
        for kind in ("images", "labels"):
            (out / split / kind).mkdir(parents=True)
        for at, sample in enumerate(samples):
            _copy(sample, out / split, f"{at:05d}", shift, len(found.classes))
    body = {"path": str(out.resolve()), "train": "train/images", "val": "val/images",
            "names": dict(enumerate(found.classes))}  # fmt: skip
    (out / "data.yaml").write_text(yaml.safe_dump(body, sort_keys=False))
    return out / "data.yaml"


def _copy(sample: Sample, split: Path, name: str, shift: int, classes: int) -> None:
    shutil.copyfile(sample.image, split / "images" / f"{name}{sample.image.suffix}")
    text = sample.labels.read_text() if sample.labels.is_file() else ""
    lines = []
    for line in text.splitlines():
        label, _, rest = line.strip().partition(" ")
        if label:
            lines.append(f"{(int(float(label)) + shift) % classes} {rest}\n")
    (split / "labels" / f"{name}.txt").write_text("".join(lines))
