"""Trains the demo's detector on drawn images: ``python -m demo.train`` made the fixture.

Ultralytics is AGPL-3.0: it is used here and in the builder, and reaches no board.
"""

from __future__ import annotations

import argparse
import csv
import logging
import os
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from demo.shapes import CLASSES, TRAINING_RADII, draw_dataset

FIXTURE = Path(__file__).parent / "weights" / "shapes_pico.pt"
#: YOLOv8 with an eighth of the large model's channels: 0.75 M parameters.
_PICO = {"depth_multiple": 0.33, "width_multiple": 0.125}
_EVERY_TRAINING: dict[str, Any] = {
    "batch": 16, "device": "cpu", "deterministic": True, "workers": 0, "amp": False,
    "optimizer": "AdamW", "weight_decay": 5e-4, "cos_lr": True, "patience": 0,
    "mosaic": 0.0, "mixup": 0.0, "degrees": 0.0, "hsv_h": 0.02, "fliplr": 0.5, "flipud": 0.5,
    "scale": 0.2, "translate": 0.05,
    "plots": False, "verbose": False, "name": "run", "exist_ok": True,
}  # fmt: skip


def quiet_ultralytics() -> Any:
    """Imports Ultralytics offline and without its chatter; returns the module."""
    os.environ.setdefault("YOLO_OFFLINE", "true")
    os.environ.setdefault("YOLO_CONFIG_DIR", tempfile.mkdtemp(prefix="kedge-ultralytics-"))
    os.environ.setdefault("YOLO_VERBOSE", "false")
    os.environ.setdefault("YOLO_AUTOINSTALL", "false")
    from kedge_builder.models.torchvision_ops import ensure_torchvision_ops

    ensure_torchvision_ops()
    import ultralytics
    from ultralytics.utils import LOGGER

    LOGGER.setLevel(logging.ERROR)
    return ultralytics


def pico_yaml(folder: Path) -> Path:
    """Writes the architecture: YOLOv8 from the installed package, scaled to pico."""
    import ultralytics
    import yaml

    source = Path(ultralytics.__file__).parent / "cfg" / "models" / "v8" / "yolov8.yaml"
    body = yaml.safe_load(source.read_text())
    body["scales"] = {"n": [_PICO["depth_multiple"], _PICO["width_multiple"], 1024]}
    body["nc"] = len(CLASSES)
    path = folder / "yolov8n-pico.yaml"
    path.write_text(yaml.safe_dump(body, sort_keys=False))
    return path


def train_base(data: Path, *, epochs: int, size: int, seed: int, out: Path) -> Path:
    """Trains from random weights and writes checkpoint and log (``.csv``) to ``out``."""
    with tempfile.TemporaryDirectory(prefix="kedge-train-") as scratch:
        architecture = pico_yaml(Path(scratch))
        options = {"lr0": 2e-3, "warmup_epochs": 2.0, "close_mosaic": 0}
        return _train(architecture, data, epochs, size, seed, out, Path(scratch), options)


def fine_tune(
    weights: Path,
    data: Path,
    *,
    epochs: int,
    out: Path,
    size: int = 160,
    seed: int = 1,
    lr: float = 5e-4,
) -> Path:
    """Trains an existing checkpoint on and writes the result to ``out``."""
    with tempfile.TemporaryDirectory(prefix="kedge-train-") as scratch:
        options = {"lr0": lr, "warmup_epochs": 0.3, "warmup_bias_lr": lr}
        return _train(weights, data, epochs, size, seed, out, Path(scratch), options)


def _train(
    start: Path,
    data: Path,
    epochs: int,
    size: int,
    seed: int,
    out: Path,
    scratch: Path,
    options: dict[str, Any],
) -> Path:
    model = quiet_ultralytics().YOLO(str(start), task="detect")
    model.add_callback("on_fit_epoch_end", _progress(epochs))
    model.train(
        data=str(data),
        epochs=epochs,
        imgsz=size,
        seed=seed,
        project=str(scratch),
        **_EVERY_TRAINING,
        **options,
    )
    out.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(scratch / "run" / "results.csv", out.with_suffix(".csv"))
    _save_clean(scratch / "run" / "weights" / "last.pt", out)
    return out


def _save_clean(trained: Path, out: Path) -> None:
    """Keeps the averaged weights and forgets optimizer, folders and options of this machine."""
    import torch

    checkpoint = torch.load(trained, map_location="cpu", weights_only=False)
    model = (checkpoint.get("ema") or checkpoint["model"]).half()
    model.args = {"task": "detect", "imgsz": checkpoint["train_args"]["imgsz"]}
    if isinstance(getattr(model, "yaml", None), dict):
        model.yaml["yaml_file"] = Path(model.yaml.get("yaml_file", "pico.yaml")).name
    clean = {
        "model": model,
        "train_args": model.args,
        "epoch": -1,
        "version": checkpoint.get("version"),
    }
    torch.save(clean, out)


def _progress(epochs: int) -> Callable[[Any], None]:
    started = time.monotonic()

    def show(trainer: Any) -> None:
        done = trainer.epoch + 1
        if done > epochs:  # the closing evaluation of the best weights
            return
        left = (time.monotonic() - started) / done * (epochs - done)
        metrics = trainer.metrics or {}
        score = metrics.get("metrics/mAP50(B)", 0.0), metrics.get("metrics/mAP50-95(B)", 0.0)
        print(
            f"   epoch {done}/{epochs}: mAP50 {score[0]:.3f}, mAP50-95 {score[1]:.3f}, "
            f"{left:.0f} s left",
            flush=True,
        )

    return show


def main() -> None:
    """Draws the data and trains the fixture."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=34)
    parser.add_argument("--train", type=int, default=1400)
    parser.add_argument("--val", type=int, default=200)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--out", type=Path, default=FIXTURE)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="kedge-data-") as scratch:
        root = Path(scratch) / "data"
        data = draw_dataset(
            root,
            train=options.train,
            val=options.val,
            size=160,
            seed=options.seed,
            radii=TRAINING_RADII,
        )
        train_base(data, epochs=options.epochs, size=160, seed=options.seed, out=options.out)
    with options.out.with_suffix(".csv").open() as log:
        last = list(csv.DictReader(log))[-1]
    print(f"{options.out}: { ({key.strip(): value.strip() for key, value in last.items()}) }")


if __name__ == "__main__":
    main()
