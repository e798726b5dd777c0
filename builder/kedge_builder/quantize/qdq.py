"""INT8 for ONNX Runtime: explicit QDQ, unsigned activations, signed weights per channel.

Why this form: symmetric S8S8 runs 1.9 times slower than float on AVX2 kernels; without VNNI
8-bit weights saturate their accumulators, hence ``reduce_range``. (Measured; docs/builder.md.)
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from kedge_builder.quantize.floatzone import FloatZone
from kedge_builder.silence import silence
from kedge_shared.detections import Array

Calibrator = Literal["minmax", "percentile"]
#: Batches a histogram calibrator sees at a time: it keeps every activation of a chunk.
_CHUNK = 2
_PERCENTILE = 99.99


@dataclass(frozen=True)
class Calibration:
    """How the ranges of activations were found.

    Attributes:
        calibrator: ``minmax`` or ``percentile``.
        batches: Calibration inputs, each (1, 3, h, w).
    """

    calibrator: Calibrator
    batches: Sequence[Array]


def prepare_float(model: bytes) -> Any:
    """Returns the float graph with shapes inferred and constants folded, every node named."""
    import onnx
    from onnxruntime.quantization.shape_inference import quant_pre_process

    from kedge_builder.quantize.floatzone import name_nodes

    logging.getLogger().setLevel(logging.ERROR)
    with tempfile.TemporaryDirectory(prefix="kedge-onnx-") as scratch:
        given, made = Path(scratch) / "given.onnx", Path(scratch) / "made.onnx"
        given.write_bytes(model)
        quant_pre_process(str(given), str(made), skip_symbolic_shape=True)
        graph = onnx.load(str(made))
    name_nodes(graph)
    return graph


def quantize(graph: Any, zone: FloatZone, calibration: Calibration, *, reduce_range: bool) -> bytes:
    """Quantizes everything outside of the float zone.

    Args:
        graph: From :func:`prepare_float`; left as it is.
        zone: What stays float.
        calibration: How to find ranges.
        reduce_range: 7-bit weights.

    Returns:
        The QDQ model; the same input gives the same bytes.
    """
    import onnx
    from onnxruntime.quantization import QuantType
    from onnxruntime.quantization.qdq_quantizer import QDQQuantizer

    ranges = _ranges(graph, calibration)
    copy = onnx.ModelProto()
    copy.CopyFrom(graph)
    quantizer = QDQQuantizer(
        copy,
        per_channel=True,
        reduce_range=reduce_range,
        weight_qType=QuantType.QInt8,
        activation_qType=QuantType.QUInt8,
        tensors_range=ranges,
        nodes_to_quantize=[],
        nodes_to_exclude=list(zone.reasons),
        op_types_to_quantize=_quantizable(graph),
        extra_options={"ActivationSymmetric": False, "WeightSymmetric": True},
    )
    quantizer.quantize_model()
    return bytes(quantizer.model.model.SerializeToString())


def _quantizable(graph: Any) -> list[str]:
    from onnxruntime.quantization.registry import QDQRegistry

    return sorted({node.op_type for node in graph.graph.node} & set(QDQRegistry))


def _ranges(graph: Any, calibration: Calibration) -> Any:
    from onnxruntime.quantization import CalibrationMethod
    from onnxruntime.quantization.calibrate import create_calibrator

    methods = {"minmax": CalibrationMethod.MinMax, "percentile": CalibrationMethod.Percentile}
    options = {"percentile": _PERCENTILE} if calibration.calibrator == "percentile" else {}
    with tempfile.TemporaryDirectory(prefix="kedge-calibrate-") as scratch, silence():
        given = Path(scratch) / "float.onnx"
        given.write_bytes(graph.SerializeToString())
        calibrator = create_calibrator(
            str(given),
            _quantizable(graph),
            augmented_model_path=str(Path(scratch) / "augmented.onnx"),
            calibrate_method=methods[calibration.calibrator],
            extra_options=options,
        )
        for at in range(0, len(calibration.batches), _CHUNK):
            calibrator.collect_data(_Reader(calibration.batches[at : at + _CHUNK]))
        return calibrator.compute_data()


class _Reader:
    """onnxruntime's port for calibration inputs."""

    def __init__(self, batches: Sequence[Array]) -> None:
        self._left: Iterator[Array] = iter(batches)

    def get_next(self) -> dict[str, Array] | None:
        """Returns the next input, or ``None``."""
        batch = next(self._left, None)
        return None if batch is None else {"images": batch}
