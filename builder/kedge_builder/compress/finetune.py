"""Trains a detector on, as it stands: a pruned network stays pruned.

Works on copies: Ultralytics writes ``labels.cache`` beside labels and mends broken JPEG files
where they lie. With a teacher the loss holds the distance to the teacher's answers as well
(:mod:`kedge_builder.compress.response`). Ultralytics' own distillation compares feature maps
through learned projections; comparing answers needs no parameters, and judges pruning and
quantization by the same measure.
"""

from __future__ import annotations

import copy
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from kedge_builder.data.datasets import Data, Sample, read_data
from kedge_builder.models import checkpoint
from kedge_builder.models.torchvision_ops import ensure_torchvision_ops
from kedge_builder.models.ultralytics_offline import quiet
from kedge_builder.models.weights import Trained
from kedge_builder.progress import Progress
from kedge_builder.silence import silence
from kedge_shared.errors import InputError

#: The same for every short training. Without ``amp``, whose check downloads a model.
SHORT_TRAINING: dict[str, Any] = {
    "deterministic": True, "amp": False, "optimizer": "AdamW", "weight_decay": 5e-4,
    "cos_lr": True, "patience": 0, "warmup_epochs": 0.3,
    # Mosaics are for long trainings; the last epochs of those go without, too.
    "mosaic": 0.0, "mixup": 0.0, "close_mosaic": 0, "scale": 0.2, "translate": 0.05,
    "plots": False, "verbose": False, "save": False, "name": "run", "exist_ok": True,
}  # fmt: skip
_JPEG, _JPEG_END = frozenset({".jpg", ".jpeg"}), b"\xff\xd9"


@dataclass(frozen=True, kw_only=True)
class FinetuneOptions:
    """How to train on.

    Attributes:
        epochs: Passes over the training images.
        size: Input pixels, a multiple of the largest stride.
        lr: Learning rate at the start; a cosine takes it to a hundredth.
        batch: Images a step.
        seed: Of every draw.
        distil: Weight of the teacher's share in the loss.
        device: As torch names it; empty takes a GPU where there is one.
    """

    epochs: int
    size: int
    lr: float = 1e-4
    batch: int = 16
    seed: int = 0
    distil: float = 1.0
    device: str = ""


def finetune(
    trained: Trained,
    data: Data | Path,
    options: FinetuneOptions,
    out: Path,
    *,
    progress: Progress,
    teacher: Trained | None = None,
) -> Path:
    """Trains a detector on and writes a checkpoint.

    Args:
        trained: What to train; left as it is.
        data: Trained on are the images of its ``train``; a path is read as a ``data.yaml``.
        options: How.
        out: The checkpoint.
        progress: Shows batches and the time left.
        teacher: With the same head; its answers are learned besides the labels.

    Returns:
        ``out``.

    Raises:
        InputError: The data cannot be used or has other classes than the model.
        StorageError: The disk is full or cannot be written.
    """
    found = data if isinstance(data, Data) else read_data(data)
    _check(trained, found)
    steps = options.epochs * -(-len(found.train) // options.batch)
    stage = f"fine-tuning, {options.epochs} epochs"
    with _copied(found) as (folder, listed), progress.stage(stage, steps) as tick:
        model = train(copy.deepcopy(trained.model), listed, folder, options, tick=tick,
                      teacher=teacher and copy.deepcopy(teacher.model))  # fmt: skip
    checkpoint.save(model, out, size=options.size)
    return out


def train(
    model: Any,
    data: Path,
    folder: Path,
    options: FinetuneOptions,
    *,
    teacher: Any = None,
    tick: Any = None,
    **more: Any,
) -> Any:
    """Runs the training and returns the averaged weights.

    Args:
        model: Module to train, in place.
        data: ``data.yaml``; caches are written beside its labels.
        folder: For what Ultralytics must write; the caller removes it.
        options: How.
        teacher: Module to learn from.
        tick: Called after each batch.
        more: Ultralytics options that differ from :data:`SHORT_TRAINING`.
    """
    ensure_torchvision_ops()
    quiet()
    import torch

    from kedge_builder.compress.trainer import KeepingTrainer

    device = options.device or ("0" if torch.cuda.is_available() else "cpu")
    overrides = {
        **SHORT_TRAINING, "data": str(data), "project": str(folder), "epochs": options.epochs,
        "imgsz": options.size, "batch": options.batch, "seed": options.seed, "device": device,
        # A step after each batch: short trainings have few.
        "nbs": options.batch, "lr0": options.lr, "warmup_bias_lr": options.lr,
        "workers": 0 if device == "cpu" else min(4, os.cpu_count() or 1), **more,
    }  # fmt: skip
    for each in model.parameters():
        each.requires_grad_(each.is_floating_point())
    trainer = KeepingTrainer(model, overrides, teacher=teacher, weight=options.distil)
    # Ultralytics leaves one core to its data loader; on a CPU there is none (``workers``).
    cores = len(os.sched_getaffinity(0))
    trainer.add_callback("on_train_start", lambda _: torch.set_num_threads(cores))
    if tick is not None:
        trainer.add_callback("on_train_batch_end", lambda _: tick())
    with silence():
        trainer.train()
    return trainer.ema.ema.cpu().float().eval()


def _check(trained: Trained, data: Data) -> None:
    if len(trained.classes) != len(data.classes):
        raise InputError(
            f"the model has {len(trained.classes)} classes, the data {len(data.classes)}",
            "give the data that it was trained for",
        )
    if not any(each.labels.is_file() and each.labels.stat().st_size for each in data.train):
        raise InputError("the data leaves no labelled images to train on", "list more in 'train'")


@contextmanager
def _copied(data: Data) -> Iterator[tuple[Path, Path]]:
    """Yields a scratch folder with the training images, and its ``data.yaml``."""
    with tempfile.TemporaryDirectory(prefix="kedge-train-") as scratch:
        root = Path(scratch) / "data"
        _lay_out(data.train, root, "train")
        # Never looked at, but Ultralytics insists on a validation set.
        _lay_out(data.select[:1] or data.train[:1], root, "val")
        body = {"path": str(root), "train": "images/train", "val": "images/val",
                "names": dict(enumerate(data.classes))}  # fmt: skip
        listed = root / "data.yaml"
        listed.write_text(yaml.safe_dump(body))
        yield Path(scratch), listed


def _lay_out(samples: Sequence[Sample], root: Path, split: str) -> None:
    images, labels = root / "images" / split, root / "labels" / split
    images.mkdir(parents=True)
    labels.mkdir(parents=True)
    for at, each in enumerate(samples):
        image = images / f"{at:07d}{each.image.suffix.lower()}"
        if _would_be_mended(each.image):
            shutil.copyfile(each.image, image)
        else:
            image.symlink_to(each.image.resolve())
        if each.labels.is_file():
            shutil.copyfile(each.labels, labels / f"{at:07d}.txt")


def _would_be_mended(image: Path) -> bool:
    """Says whether Ultralytics would write into the file: a JPEG that ends before its end."""
    if image.suffix.lower() not in _JPEG:
        return False
    with image.open("rb") as file:
        file.seek(-2, os.SEEK_END)
        return file.read() != _JPEG_END
