"""What the demo does, in one place."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

MODEL = "shapes"
DEVICES = {
    "gate-north": "x86-onnxruntime",
    "gate-south": "x86-onnxruntime",
    "line-1": "x86-openvino",
    "line-2": "x86-openvino",
    "dock": "x86-onnxruntime",
}


@dataclass(frozen=True, kw_only=True)
class DemoSettings:
    """Sizes and times of the demo.

    Attributes:
        out: Everything the demo makes; removed at the start.
        summary: Where the figures go.
        weights: Trained checkpoint of release 1.0.
        data: One's own data set, or ``None`` to draw one.
        input_size: Pixels of releases 1.0, 1.1 and 1.3.
        large_size: Pixels of release 1.2.
        fps: Frames a second of each board's camera.
        train_images: Drawn for fine-tuning and calibration.
        gate_images: Drawn for the builder's verdict.
        port: Of the server; 0 takes a free one.
    """

    out: Path
    summary: Path
    weights: Path
    data: Path | None = None
    input_size: int = 160
    large_size: int = 512
    fps: float = 12.0
    train_images: int = 240
    gate_images: int = 200
    port: int = 0
