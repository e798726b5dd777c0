"""FP16 for what is not INT8, written into the graph, where a strongly typed network reads types.

TensorRT 11 has no precision flags, and a strongly typed network of any release ignores them. Left
in FP32, the float part of a YOLOv8 costs 18 % of the latency (Ultralytics issue 26167). The decode
behind the last convolutions stays FP32: at 640 px a box coordinate in FP16 has steps of half a
pixel.
"""

from __future__ import annotations

from graphlib import TopologicalSorter
from typing import Any

import numpy as np

from kedge_builder.quantize.floatzone import find_float_zone, name_nodes
from kedge_shared.errors import InputError

#: The first opset whose QuantizeLinear takes FP16.
_OPSET = 19
#: Resize reads its scales as FP32 whatever it resizes.
_KEEPS_FLOAT = {"Resize": frozenset({1, 2})}
_HALF_MAX = float(np.finfo(np.float16).max)


def to_half(model: Any) -> Any:
    """Returns a copy with FP16 in front of the decode; inputs and outputs stay FP32.

    Args:
        model: ``onnx.ModelProto`` of a detector, quantized or not.

    Raises:
        InputError: A weight does not fit FP16, or the graph is no detector's.
    """
    import onnx

    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    standard = [each for each in copy.opset_import if each.domain == ""]
    del copy.opset_import[:]
    copy.opset_import.extend(standard)
    name_nodes(copy)
    copy = onnx.version_converter.convert_version(copy, _OPSET)
    name_nodes(copy)
    _sort(copy.graph)  # the float zone and types are found in the order of the nodes
    zone = find_float_zone(copy)
    copy = onnx.shape_inference.infer_shapes(copy, strict_mode=True)
    _Halves(copy, frozenset(zone.reasons) - frozenset(zone.edges)).write()
    del copy.graph.value_info[:]
    return copy


class _Halves:
    """One rewriting of one graph."""

    def __init__(self, model: Any, decode: frozenset[str]) -> None:
        from onnx import TensorProto

        self._graph, self._decode = model.graph, decode
        self._float, self._half = TensorProto.FLOAT, TensorProto.FLOAT16
        self._weights = {each.name: each for each in self._graph.initializer}
        known = (*self._graph.value_info, *self._graph.input, *self._graph.output)
        self._floats = {
            each.name for each in known if each.type.tensor_type.elem_type == self._float
        }
        self._makers = {out: node for node in self._graph.node for out in node.output}
        self._new: list[Any] = []
        self._made: set[str] = set()

    def write(self) -> None:
        nodes = list(self._graph.node)
        for node in nodes:
            if node.name in self._decode:
                self._raise_inputs(node)
            else:
                self._halve_inputs(node)
            self._new.append(node)
        del self._graph.node[:]
        self._graph.node.extend(self._new)
        _sort(self._graph)
        used = {name for node in self._new for name in node.input}
        kept = [each for each in self._graph.initializer if each.name in used]
        del self._graph.initializer[:]
        self._graph.initializer.extend(kept)

    def _halve_inputs(self, node: Any) -> None:
        self._retype(node)
        for at, name in enumerate(node.input):
            if at in _KEEPS_FLOAT.get(node.op_type, ()):
                continue
            weight = self._weights.get(name)
            if weight is not None and weight.data_type == self._float:
                node.input[at] = self._half_weight(weight)
            elif name in self._floats and name not in self._makers:
                node.input[at] = self._cast(name, self._half)

    def _raise_inputs(self, node: Any) -> None:
        for at, name in enumerate(node.input):
            maker = self._makers.get(name)
            if maker is not None and maker.name not in self._decode and name in self._floats:
                node.input[at] = self._cast(name, self._float)

    def _retype(self, node: Any) -> None:
        """Turns constants and casts of the half part into FP16."""
        from onnx import numpy_helper

        for each in node.attribute:
            if node.op_type == "Cast" and each.name == "to" and each.i == self._float:
                each.i = self._half
            if node.op_type == "Constant" and each.t.data_type == self._float:
                values = numpy_helper.to_array(each.t)
                each.t.CopyFrom(numpy_helper.from_array(halved(values, node.name)))

    def _half_weight(self, weight: Any) -> str:
        from onnx import numpy_helper

        name = f"{weight.name}/half"
        if name not in self._made:
            self._made.add(name)
            values = halved(numpy_helper.to_array(weight), weight.name)
            self._graph.initializer.append(numpy_helper.from_array(values, name))
        return name

    def _cast(self, tensor: str, kind: int) -> str:
        from onnx import helper

        name = f"{tensor}/{'half' if kind == self._half else 'float'}"
        if name not in self._made:
            self._made.add(name)
            self._new.append(helper.make_node("Cast", [tensor], [name], name=name, to=kind))
        return name


def _sort(graph: Any) -> None:
    """Puts each node after what it reads; quantizers append in any order."""
    nodes = list(graph.node)
    makers = {out: at for at, node in enumerate(nodes) for out in node.output}
    reads = {
        at: [makers[name] for name in node.input if name in makers] for at, node in enumerate(nodes)
    }
    del graph.node[:]
    graph.node.extend(nodes[at] for at in TopologicalSorter(reads).static_order())


def halved(values: Any, name: str) -> Any:
    """Returns an array in FP16.

    Raises:
        InputError: It does not fit.
    """
    if values.size and float(np.abs(values).max()) > _HALF_MAX:
        raise InputError(
            f"{name} holds a number beyond FP16's {_HALF_MAX:.0f}", "build the class in FP32"
        )
    return values.astype(np.float16)
