"""Writes a detector as a checkpoint that :func:`kedge_builder.models.weights.load` reads again."""

from __future__ import annotations

import copy
import hashlib
import os
from pathlib import Path
from typing import Any

from kedge_shared.errors import StorageError


def save(model: Any, path: Path, *, size: int) -> None:
    """Writes weights and architecture, and nothing of the machine that made them.

    Whole or not at all: written aside, synced, renamed. Weights stay float32, so that a reloaded
    model's outputs are bit-equal.

    Args:
        model: Ultralytics detection model.
        path: Of the checkpoint; its folder is made.
        size: Input pixels it was trained for.

    Raises:
        StorageError: The disk is full or cannot be written.
    """
    import torch
    import ultralytics

    clean = copy.deepcopy(model).cpu().eval()
    clean.criterion = None
    clean.args = {"task": "detect", "imgsz": size}
    if isinstance(getattr(clean, "yaml", None), dict) and "yaml_file" in clean.yaml:
        clean.yaml["yaml_file"] = Path(str(clean.yaml["yaml_file"])).name
    body = {"model": clean, "train_args": clean.args, "epoch": -1,
            "version": ultralytics.__version__}  # fmt: skip
    aside = path.with_name(f".{path.name}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.save(body, aside)
        put(aside, path)
    except (OSError, RuntimeError) as error:  # torch's writer turns a full disk into the latter
        raise StorageError(f"checkpoint {path} cannot be written: {error}") from None


def put(aside: Path, path: Path) -> None:
    """Puts ``aside`` in the place of ``path`` so that a power cut leaves one of the two whole."""
    _sync(aside)
    aside.replace(path)
    _sync(path.parent)


def _sync(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def weights_sha256(model: Any) -> str:
    """Returns a digest over names and values of every weight, whatever file they came from."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
