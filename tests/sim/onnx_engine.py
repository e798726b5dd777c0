"""A detector's shape without a detector: one convolution, so that real runtimes load quickly."""

from __future__ import annotations

import numpy as np

#: Two classes, sixteen anchors at 32 px.
SIZE = 32


def tiny_onnx(seed: int = 0) -> bytes:
    """Returns ONNX from (1, 3, 32, 32) to (1, 6, 16)."""
    from onnx import TensorProto, helper, numpy_helper

    rng = np.random.default_rng(seed)
    weights = numpy_helper.from_array(
        rng.normal(size=(6, 3, 8, 8)).astype(np.float32) * 0.01, "weights"
    )
    shape = numpy_helper.from_array(np.array([1, 6, 16], dtype=np.int64), "shape")
    nodes = [
        helper.make_node("Conv", ["images", "weights"], ["grid"], strides=[8, 8]),
        helper.make_node("Reshape", ["grid", "shape"], ["output0"]),
    ]
    given = helper.make_tensor_value_info("images", TensorProto.FLOAT, [1, 3, SIZE, SIZE])
    made = helper.make_tensor_value_info("output0", TensorProto.FLOAT, [1, 6, 16])
    graph = helper.make_graph(nodes, "tiny", [given], [made], [weights, shape])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return bytes(model.SerializeToString())
