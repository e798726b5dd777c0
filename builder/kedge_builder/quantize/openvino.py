"""INT8 for OpenVINO through NNCF, the float zone ignored.

Preset MIXED (symmetric weights, asymmetric activations) with the float zone left out loses least;
PERFORMANCE, or no ignored scope, costs six points. (Measured; docs/builder.md.)
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

from kedge_builder.quantize.floatzone import FloatZone
from kedge_builder.silence import silence
from kedge_shared.detections import Array


class Batches(Protocol):
    """Inputs (1, 3, h, w) that can be gone through more than once; a list is one."""

    def __len__(self) -> int:
        """How many."""
        ...

    def __iter__(self) -> Iterator[Array]:
        """Yields them."""
        ...


def to_openvino(onnx_model: bytes) -> Any:
    """Reads a float ONNX model into OpenVINO's form."""
    import openvino as ov

    with tempfile.TemporaryDirectory(prefix="kedge-openvino-") as scratch:
        path = Path(scratch) / "model.onnx"
        path.write_bytes(onnx_model)
        return ov.convert_model(str(path))


def ignored_names(model: Any, zone: FloatZone, keep_float: Sequence[str] = ()) -> list[str]:
    """Returns the OpenVINO operators that came from nodes that stay float.

    A convolution with bias arrives as two: ``NAME/WithoutBiases`` and an Add called ``NAME``.

    Raises:
        ValueError: A convolution at the zone's edge has no counterpart: it would be quantized.
    """
    wanted = {*zone.reasons, *keep_float}
    found: dict[str, str] = {}
    for operator in model.get_ops():
        name = str(operator.get_friendly_name())
        source = name if name in wanted else name.rsplit("/", 1)[0]
        if source in wanted and operator.get_type_name() not in {"Constant", "Result"}:
            found[name] = source
    lost = [edge for edge in zone.edges if not any(source == edge for source in found.values())]
    if lost:
        raise ValueError(f"float zone is lost in OpenVINO's graph: {', '.join(lost)}")
    return sorted(found)


def quantize(
    model: Any,
    zone: FloatZone,
    batches: Batches,
    *,
    keep_float: Sequence[str] = (),
) -> Any:
    """Quantizes everything outside of the float zone; NNCF corrects the biases itself.

    Args:
        model: From :func:`to_openvino`; left as it is.
        zone: What stays float.
        batches: Calibration inputs, each (1, 3, h, w).
        keep_float: Nodes of the ONNX graph that stay float besides.

    Returns:
        The quantized OpenVINO model.
    """
    import nncf

    nncf.set_log_level(logging.ERROR)
    ignored = nncf.IgnoredScope(names=ignored_names(model, zone, keep_float), validate=False)
    with silence():
        return nncf.quantize(
            model,
            nncf.Dataset(batches),
            preset=nncf.QuantizationPreset.MIXED,
            subset_size=len(batches),
            ignored_scope=ignored,
        )


def save(model: Any, path: Path, *, half: bool = False) -> None:
    """Writes ``path`` (.xml) and the .bin beside it; ``half`` stores float weights in 16 bits."""
    import openvino as ov

    ov.save_model(model, str(path), compress_to_fp16=half)
