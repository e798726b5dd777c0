"""Data sets in YOLO layout, split so that what was used to choose is never used to judge."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import yaml

from kedge_shared.errors import InputError
from kedge_shared.vision import Frame

_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp"})
_YAML_LIMIT_BYTES = 1024 * 1024
#: Images for calibration and, besides, for choosing between calibrations.
CALIBRATE, SELECT = 128, 64

#: (m, 5): class, x1 y1 x2 y2 in pixels of the image.
Labels: TypeAlias = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Sample:
    """An image with its label file.

    Attributes:
        image: Path.
        labels: Path; may be missing: an image without objects.
        sha256: Of the image file.
    """

    image: Path
    labels: Path
    sha256: str

    def frame(self) -> Frame:
        """Returns the image, (h, w, 3) BGR.

        Raises:
            InputError: OpenCV cannot read it.
        """
        import cv2

        image = cv2.imread(str(self.image), cv2.IMREAD_COLOR)
        if image is None:
            raise InputError(f"image {self.image} cannot be read", "remove or replace it")
        return np.asarray(image, dtype=np.uint8)

    def truth(self, height: int, width: int) -> Labels:
        """Returns the labels of an image of ``height`` x ``width`` pixels.

        Raises:
            InputError: A line is not ``class cx cy w h``.
        """
        text = self.labels.read_text() if self.labels.is_file() else ""
        try:
            rows = np.array([[float(v) for v in line.split()[:5]] for line in text.splitlines()
                             if line.strip()], dtype=np.float32).reshape(-1, 5)  # fmt: skip
        except ValueError:
            raise InputError(f"labels {self.labels} are no lines of 'class cx cy w h'") from None
        half = rows[:, 3:5] / 2
        scale = np.array([width, height], dtype=np.float32)
        boxes = np.concatenate([(rows[:, 1:3] - half) * scale, (rows[:, 1:3] + half) * scale], 1)
        return np.concatenate([rows[:, :1], boxes], axis=1).astype(np.float32)


@dataclass(frozen=True)
class Data:
    """A data set, split by use.

    Attributes:
        calibrate: The quantizer sees these.
        select: The choice between candidates is made on these.
        gate: The verdict is made on these.
        classes: Names in the order of the labels.
        notes: What was left out and why.
        train: Whatever may be trained on: all of ``train`` that neither chooses nor judges.
    """

    calibrate: tuple[Sample, ...]
    select: tuple[Sample, ...]
    gate: tuple[Sample, ...]
    classes: tuple[str, ...]
    notes: tuple[str, ...]
    train: tuple[Sample, ...] = ()

    @property
    def sha256(self) -> str:
        """Digest over every image and label used, in order."""
        digest = hashlib.sha256()
        for each in (*self.calibrate, *self.select, *self.gate):
            digest.update(each.sha256.encode())
            digest.update(each.labels.read_bytes() if each.labels.is_file() else b"")
        return digest.hexdigest()


def read_data(path: Path, *, seed: int = 0, gate_limit: int | None = None) -> Data:
    """Reads a ``data.yaml`` and splits its images.

    Calibration and choice come from ``train``, the verdict from ``val``. Without ``train`` half of
    ``val`` is set apart. An image that is in both (by its bytes) is left out of calibration.

    Args:
        path: Ultralytics' format: ``path``, ``train``, ``val``, ``names``.
        seed: Of the draw.
        gate_limit: Images for the verdict at the most; ``None`` takes all.

    Raises:
        InputError: Unreadable, without images or labels, or too small.
    """
    body = _read_yaml(path)
    classes = _names(body, path)
    root = (path.parent / str(body.get("path", "."))).resolve()
    train = _samples(root, body.get("train"), path)
    gate = _samples(root, body.get("val") or body.get("test"), path)
    if not gate:
        raise InputError(f"data {path} has no 'val' images", "list a folder of images under 'val'")
    rng = random.Random(seed)  # noqa: S311 - a draw of images, not a secret
    rng.shuffle(train)
    rng.shuffle(gate)
    notes: list[str] = []
    if not train:
        notes.append("no 'train' images: half of 'val' was set apart for calibration")
        train, gate = gate[: len(gate) // 2], gate[len(gate) // 2 :]
    gate = gate[:gate_limit]
    judged = {each.sha256 for each in gate}
    kept = [each for each in train if each.sha256 not in judged]
    if len(kept) < len(train):
        notes.append(f"{len(train) - len(kept)} images of 'train' are in 'val' too: left out")
    calibrate, rest = kept[:CALIBRATE], kept[CALIBRATE : CALIBRATE + SELECT]
    select = rest or kept[: max(1, len(kept) // 4)]
    chosen_on = {each.sha256 for each in select}
    trained_on = tuple(each for each in kept if each.sha256 not in chosen_on)
    data = Data(tuple(calibrate), tuple(select), tuple(gate), classes, tuple(notes), trained_on)
    _check(data, path)
    return data


def _check(data: Data, path: Path) -> None:
    if len(data.calibrate) < 8:
        raise InputError(
            f"data {path} leaves {len(data.calibrate)} images for calibration",
            "give 8 at the very least, better 100-500",
        )
    if not any(each.labels.is_file() and each.labels.stat().st_size for each in data.gate):
        raise InputError(f"data {path} has no labels for its 'val' images", "label them first")
    highest = max((int(each.truth(1, 1)[:, 0].max(initial=-1)) for each in data.gate), default=-1)
    if highest >= len(data.classes):
        raise InputError(f"data {path} has labels of class {highest}, but names only "
                         f"{len(data.classes)} classes")  # fmt: skip


def _read_yaml(path: Path) -> dict[str, Any]:
    from kedge_shared.wire import read_limited

    try:
        body = yaml.safe_load(read_limited(path, "data", _YAML_LIMIT_BYTES))
    except yaml.YAMLError as error:
        raise InputError(f"data {path} is no YAML: {str(error).splitlines()[0]}") from None
    if not isinstance(body, dict):
        raise InputError(f"data {path} is no data.yaml", "it names 'train', 'val' and 'names'")
    return body


def _names(body: dict[str, Any], path: Path) -> tuple[str, ...]:
    names = body.get("names")
    if isinstance(names, dict):
        names = [names.get(at) for at in range(len(names))]
    if not isinstance(names, list) or not names or not all(names):
        raise InputError(f"data {path} has no 'names'", "list the classes in order")
    return tuple(str(each) for each in names)


def _samples(root: Path, entry: Any, path: Path) -> list[Sample]:
    if entry is None:
        return []
    folders = entry if isinstance(entry, list) else [entry]
    images: list[Path] = []
    for each in folders:
        folder = root / str(each)
        if not folder.is_dir():
            raise InputError(f"data {path} names {folder}, which is no folder")
        images += sorted(p for p in folder.rglob("*") if p.suffix.lower() in _SUFFIXES)
    return [_sample(image) for image in images]


def _sample(image: Path) -> Sample:
    parts = list(image.parts)
    if "images" in parts:
        at = len(parts) - 1 - parts[::-1].index("images")
        parts[at] = "labels"
    labels = Path(*parts).with_suffix(".txt")
    return Sample(image, labels, hashlib.sha256(image.read_bytes()).hexdigest())


def frames(samples: Sequence[Sample]) -> list[Frame]:
    """Reads images; the caller bounds how many."""
    return [each.frame() for each in samples]
