"""YOLO11 and YOLO26 from YAML, untrained, through export, float zone and both quantizers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from kedge_builder.measure.engines import EngineFile, load
from kedge_builder.models import architectures, export
from kedge_builder.quantize import openvino, qdq
from kedge_builder.quantize.floatzone import find_float_zone
from kedge_builder.quantize.observe import observe
from kedge_shared.detections import Array
from kedge_shared.manifest import Head

SIZE = 64


def batches(count: int) -> list[Array]:
    rng = np.random.default_rng(3)
    return [rng.random((1, 3, SIZE, SIZE), dtype=np.float32) for _ in range(count)]


def outputs(runtime: str, path: Path) -> Array:
    engine = load(runtime, [EngineFile("engine", path)], 1)
    return np.concatenate([engine.infer(each) for each in batches(3)[2:]])


@pytest.mark.parametrize(
    ("name", "head", "shape"),
    [
        ("yolo11n.yaml", "yolo-v8", (1, 84, 84)),
        ("yolo26n.yaml", "yolo-v8", (1, 84, 84)),
        ("yolo26n.yaml", "yolo-end2end", (1, 84, 6)),
    ],
)
def test_quantized_engines_say_what_float_says(
    tmp_path: Path, name: str, head: Head, shape: tuple[int, ...]
) -> None:
    data = export.to_onnx(architectures.build(architectures.read(name)), SIZE, head)
    graph = qdq.prepare_float(data)
    zone = find_float_zone(graph)
    seen = observe(graph, batches(2), lambda: None)
    options = qdq.QdqOptions(form="qdq-u8s8", calibrator="minmax", reduce_range=True)
    onnx.save(graph, str(tmp_path / "float.onnx"))
    built = qdq.quantize(graph, zone, seen, options)
    (tmp_path / "qdq.onnx").write_bytes(built)
    model = openvino.to_openvino(graph.SerializeToString())
    openvino.save(openvino.quantize(model, zone, batches(2)), tmp_path / "nncf.xml")
    reference = outputs("onnxruntime", tmp_path / "float.onnx")
    assert reference.shape == shape
    assert built.count(b"QuantizeLinear") > 100
    for runtime, file in (("onnxruntime", "qdq.onnx"), ("openvino", "nncf.xml")):
        found = outputs(runtime, tmp_path / file)
        assert found.shape == shape
        assert np.ptp(found) > 1
        # End to end, rows are ranked by score, and an untrained model's scores are all alike:
        # there the boxes' spread is what can be compared.
        if head == "yolo-v8":
            boxes = np.corrcoef(reference[:, :4].ravel(), found[:, :4].ravel())[0, 1]
            logits = [
                np.log(each[:, 4:] / (1 - each[:, 4:])).ravel() for each in (reference, found)
            ]
            assert boxes > 0.99
            assert np.corrcoef(*logits)[0, 1] > 0.9
        else:
            np.testing.assert_allclose(found[..., :4].mean(), reference[..., :4].mean(), rtol=0.1)
            np.testing.assert_allclose(found[..., 4].max(), reference[..., 4].max(), rtol=0.1)
