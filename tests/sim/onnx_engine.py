"""A detector's shape without a detector: one convolution, so that real runtimes load quickly."""

from __future__ import annotations

from typing import Any

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


def greedy_onnx(size: int, wanted_bytes: int) -> bytes:
    """Returns ONNX that makes a tensor of so many bytes out of a frame."""
    from onnx import helper, numpy_helper

    shape = numpy_helper.from_array(np.array([wanted_bytes // 4], dtype=np.int64), "shape")
    nodes = [
        helper.make_node("ReduceMax", ["images"], ["most"], keepdims=0),
        helper.make_node("Expand", ["most", "shape"], ["large"]),
        helper.make_node("Mul", ["large", "large"], ["larger"]),
        helper.make_node("ReduceMax", ["larger"], ["output0"], keepdims=1),
    ]
    return _model(nodes, size, [shape])


def endless_onnx(size: int) -> bytes:
    """Returns ONNX that is not done with a frame in a lifetime."""
    from onnx import TensorProto, helper, numpy_helper

    body = helper.make_graph(
        [
            helper.make_node("Identity", ["go"], ["go_on"]),
            helper.make_node("Sin", ["state"], ["next"]),
        ],
        "body",
        [
            helper.make_tensor_value_info("turn", TensorProto.INT64, []),
            helper.make_tensor_value_info("go", TensorProto.BOOL, []),
            helper.make_tensor_value_info("state", TensorProto.FLOAT, []),
        ],
        [
            helper.make_tensor_value_info("go_on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("next", TensorProto.FLOAT, []),
        ],
    )
    turns = numpy_helper.from_array(np.array(2**62, dtype=np.int64), "turns")
    nodes = [
        helper.make_node("ReduceMax", ["images"], ["most"], keepdims=0),
        helper.make_node("Loop", ["turns", "", "most"], ["last"], body=body),
        helper.make_node("ReduceMax", ["last"], ["output0"], keepdims=1),
    ]
    return _model(nodes, size, [turns])


def _model(nodes: list[Any], size: int, constants: list[Any]) -> bytes:
    from onnx import TensorProto, helper

    given = helper.make_tensor_value_info("images", TensorProto.FLOAT, [1, 3, size, size])
    made = helper.make_tensor_value_info("output0", TensorProto.FLOAT, None)
    graph = helper.make_graph(nodes, "bad", [given], [made], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return bytes(model.SerializeToString())
