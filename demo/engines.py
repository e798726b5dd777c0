"""The demo's committed detector as ONNX files, for examples and benchmarks."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from demo.shapes import CLASSES
from demo.train import FIXTURE

__all__ = ["CLASSES", "export"]


def export(folder: Path, sizes: Sequence[int]) -> list[Path]:
    """Writes ``shapes-SIZE.onnx`` for each size and returns the paths.

    Args:
        folder: Where to.
        sizes: Input, square, pixels; multiples of 32.

    Raises:
        ImportError: The builder's extra is not installed.
    """
    from kedge_builder.models.export import to_onnx
    from kedge_builder.models.weights import load

    model = load(FIXTURE).model
    found = []
    for size in sizes:
        path = folder / f"shapes-{size}.onnx"
        path.write_bytes(to_onnx(model, size))
        found.append(path)
    return found
