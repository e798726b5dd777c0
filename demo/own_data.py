"""One's own data set for the demo: a copy of it with the labels of its classes swapped."""

from __future__ import annotations

import shutil
from pathlib import Path

import yaml

from kedge_builder.datasets import Sample, read_data


def with_wrong_labels(data: Path, out: Path) -> Path:
    """Copies a data set and names every class by the next one.

    Args:
        data: ``data.yaml``.
        out: New folder.

    Returns:
        The copy's ``data.yaml``.
    """
    found = read_data(data)
    for split, samples in (("train", (*found.calibrate, *found.select)), ("val", found.gate)):
        for kind in ("images", "labels"):
            (out / split / kind).mkdir(parents=True)
        for sample in samples:
            _copy(sample, out / split, len(found.classes))
    body = {"path": str(out.resolve()), "train": "train/images", "val": "val/images",
            "names": dict(enumerate(found.classes))}  # fmt: skip
    (out / "data.yaml").write_text(yaml.safe_dump(body, sort_keys=False))
    return out / "data.yaml"


def _copy(sample: Sample, split: Path, classes: int) -> None:
    shutil.copyfile(sample.image, split / "images" / sample.image.name)
    text = sample.labels.read_text() if sample.labels.is_file() else ""
    lines = []
    for line in text.splitlines():
        label, _, rest = line.partition(" ")
        lines.append(f"{(int(float(label)) + 1) % classes} {rest}\n")
    (split / "labels" / f"{sample.image.stem}.txt").write_text("".join(lines))
