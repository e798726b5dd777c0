"""FP16 by the board's own compiler: what is signed, and what FP16 does to it.

Before TensorRT 11 a builder's flag allows FP16, and precisions are asked for layer by layer. What
such a board is given is the float ONNX itself, marked; the decode behind the last convolutions is
kept in FP32 there, since at 640 px a box coordinate in FP16 has steps of half a pixel. Accuracy is
measured on a graph in which every weight and every tensor in front of the decode is rounded to
FP16 and sums are kept in FP32. A GPU rounds less often, where it fuses operators, and more, where
it adds in FP16 too; neither is simulated.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from kedge_builder.compilers.halves import halved
from kedge_builder.quantize.floatzone import MOVES, find_float_zone, name_nodes

#: What is said of an accuracy that was measured so.
SIMULATED = (
    "FP16 was simulated: weights, and every tensor in front of the decode, were rounded to it, and "
    "sums were kept in FP32. No board was asked."
)
_KEY, _VALUE = "kedge.float", "float16"
#: Rounded numbers stay rounded in these.
_KEEPS = MOVES | {"Concat", "MaxPool"}
#: Inputs that are no numbers of the model: Resize's region and scales.
_NO_NUMBERS = {"Resize": frozenset({1, 2})}


def marked(model: Any) -> bytes:
    """Returns the ONNX of a float model that is meant for FP16.

    Raises:
        InputError: A weight does not fit FP16.
    """
    import onnx

    rounded(model)
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    # Domains that nothing is of come from the optimizer; an old parser need not meet them.
    used = {node.domain for node in copy.graph.node}
    kept = [each for each in copy.opset_import if each.domain in used]
    del copy.opset_import[:]
    copy.opset_import.extend(kept)
    copy.metadata_props.add(key=_KEY, value=_VALUE)
    return bytes(copy.SerializeToString())


def is_marked(model: Any) -> bool:
    """Says whether an ONNX is meant for FP16."""
    return any((each.key, each.value) == (_KEY, _VALUE) for each in model.metadata_props)


def as_computed(path: Path) -> Path | bytes:
    """Returns what computes as a board does: the file itself, unless it is marked."""
    import onnx

    model = onnx.load(str(path))
    return bytes(rounded(model).SerializeToString()) if is_marked(model) else path


def rounded(model: Any) -> Any:
    """Returns a copy in FP32 whose numbers in front of the decode are those that FP16 has.

    Args:
        model: ``onnx.ModelProto`` of a float detector.

    Raises:
        InputError: A weight does not fit FP16, or the graph is no detector's.
    """
    import onnx

    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    name_nodes(copy)
    zone = find_float_zone(copy)
    _Rounding(copy, frozenset(zone.reasons) - frozenset(zone.edges)).write()
    return copy


class _Rounding:
    """One rewriting of one graph."""

    def __init__(self, model: Any, decode: frozenset[str]) -> None:
        from onnx import TensorProto

        inferred = _typed(model)
        self._graph, self._decode = model.graph, decode
        self._float = TensorProto.FLOAT
        self._weights = {each.name: each for each in self._graph.initializer}
        self._weights |= {
            each.output[0]: each.attribute[0].t
            for each in self._graph.node
            if each.op_type == "Constant"
        }
        known = (*inferred.value_info, *inferred.input, *inferred.output)
        self._floats = {
            each.name for each in known if each.type.tensor_type.elem_type == self._float
        } - set(self._weights)
        self._made: dict[str, str] = {}
        self._made_weights: dict[str, str] = {}

    def write(self) -> None:
        """Rewrites the graph."""
        nodes = list(self._graph.node)
        del self._graph.node[:]
        for each in self._graph.input:
            self._round(each.name)
        for node in nodes:
            self._read(node)
            self._graph.node.append(node)
            if node.name not in self._decode and node.op_type not in _KEEPS:
                for out in node.output:
                    self._round(out)

    def _read(self, node: Any) -> None:
        for at, name in enumerate(node.input):
            # The decode takes what FP16 gave, and its own constants as they are.
            if name in self._made:
                node.input[at] = self._made[name]
            elif node.name not in self._decode and at not in _NO_NUMBERS.get(node.op_type, ()):
                node.input[at] = self._weight(name)

    def _round(self, tensor: str) -> None:
        """Rounds a tensor for whoever reads it."""
        from onnx import TensorProto, helper

        if tensor not in self._floats:
            return
        half, back = f"{tensor}/half", f"{tensor}/rounded"
        self._graph.node.extend(
            helper.make_node("Cast", [given], [made], name=made, to=kind)
            for given, made, kind in (
                (tensor, half, TensorProto.FLOAT16), (half, back, TensorProto.FLOAT),
            )
        )  # fmt: skip
        self._made[tensor] = back

    def _weight(self, name: str) -> str:
        from onnx import numpy_helper

        weight = self._weights.get(name)
        if weight is None or weight.data_type != self._float:
            return name
        values = numpy_helper.to_array(weight)
        if name not in self._made_weights:
            made = f"{name}/rounded"
            body = halved(values, name).astype(values.dtype)
            self._graph.initializer.append(numpy_helper.from_array(body, made))
            self._made_weights[name] = made
        return self._made_weights[name]


def _typed(model: Any) -> Any:
    import onnx

    return onnx.shape_inference.infer_shapes(model, strict_mode=True).graph
