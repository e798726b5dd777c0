"""Weights as float with a Q/DQ pair: what TensorRT before 10 wants of a QDQ graph.

Its parser makes a constant of each initializer, and 8.x has none of INT8: "invalid weights type of
Int8" (NVIDIA/TensorRT issue 2163, of 8.4; megvii-research/Sparsebit issue 16, of 8.2). The float
weights are those that the INT8 ones stand for, so that the pair gives the very same numbers.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from kedge_shared.detections import Array
from kedge_shared.device_classes import DeviceClass
from kedge_shared.versions import in_range

#: Releases without INT8 constants, one for each that a range may single out.
_OLD = ("8.0", "8.2", "8.4", "8.5.2", "8.6", "9.0", "9.3")


def wants_float_weights(device_class: DeviceClass) -> bool:
    """Says whether boards of a class may have a TensorRT without INT8 constants."""
    runtime = device_class.runtime
    return runtime.name == "tensorrt" and any(in_range(each, runtime.range) for each in _OLD)


def with_float_weights(graph: Any) -> Any:
    """Returns a QDQ graph whose INT8 initializers are quantized in the graph.

    Args:
        graph: ONNX model; left as it is.
    """
    import onnx

    made = onnx.ModelProto()
    made.CopyFrom(graph)
    tensors = {each.name: each for each in made.graph.initializer}
    nodes = []
    for node in graph.graph.node:
        packed = tensors.get(node.input[0]) if node.op_type == "DequantizeLinear" else None
        if packed is None or packed.data_type != onnx.TensorProto.INT8:
            nodes.append(node)
            continue
        nodes += _pair(node, packed, tensors[node.input[1]])
    del made.graph.node[:]
    made.graph.node.extend(nodes)
    return made


def _pair(node: Any, packed: Any, scales: Any) -> tuple[Any, Any]:
    """Unpacks a weight in place; returns what quantizes it and what dequantizes it again."""
    import onnx
    from onnx import helper, numpy_helper

    name, scale = packed.name, numpy_helper.to_array(scales)
    weights = numpy_helper.to_array(packed)
    axis = helper.get_node_attr_value(node, "axis") if scale.ndim else None
    packed.CopyFrom(numpy_helper.from_array(_unpacked(weights, scale, axis), name))
    inside = {} if axis is None else {"axis": axis}
    first = helper.make_node(
        "QuantizeLinear", [name, *node.input[1:]], [f"{name}_packed"], f"{name}_pack", **inside
    )
    second = onnx.NodeProto()
    second.CopyFrom(node)
    second.input[0] = first.output[0]
    return first, second


def _unpacked(packed: Array, scale: Array, axis: int | None) -> Array:
    """Returns float32 weights; a scale for each index along ``axis``, or one for all."""
    shape = [1] * packed.ndim
    if axis is not None:
        shape[axis] = -1
    found: Array = packed.astype(np.float32) * scale.reshape(shape)
    return found
