"""The float zone: what must stay float in a detector, found from its graph and never from names.

Boxes run from 0 to the image's width, scores from 0 to 1. One INT8 scale over both (the Concat in
front of the output) leaves the scores no step at all: mAP 0.000, measured on YOLOv8n. DFL's
Softmax and the bare last convolution of each branch feed values whose small differences decide.

The walk goes back from the graph's outputs and stops at the first convolution of each path, which
it takes in. One kind of convolution is walked through: DFL's, a fixed weighting of a Softmax. A
MatMul of two activations (attention, YOLO11 and YOLO26) multiplies no weights and is no stop; a
Shape reads no numbers and is an end. End-to-end heads have TopK and its gathers behind the Concat;
what they read is walked like any other decode.
SiLU's Sigmoids lie before those convolutions and are never reached (leaving every Sigmoid float
costs 13-18 % of the frame rate; Ultralytics issue 25920).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from kedge_shared.errors import InputError

#: What can multiply weights: where INT8 pays, and where the walk stops.
WEIGHTED = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})
#: Moves numbers without changing them.
MOVES = frozenset({"Transpose", "Reshape", "Split", "Slice", "Squeeze", "Unsqueeze", "Identity",
                    "Cast", "Flatten", "Gather"})  # fmt: skip

_REASONS = {
    "Sigmoid": "class scores: steps of 1/255 would merge confidences near the threshold",
    "Softmax": "DFL: a distribution over distances, read by a weighted sum",
    "Concat": "boxes in pixels and scores in 0..1 meet here and cannot share one scale",
}
LAST = "last bare convolution of its branch: feeds box distances or class logits directly"
DFL = "DFL convolution: fixed weights over a Softmax"
DECODE = "decode: turns distances into boxes"


@dataclass(frozen=True)
class FloatZone:
    """What stays float.

    Attributes:
        reasons: Node name → why it stays float.
        edges: The convolutions at which the zone ends, in graph order.
    """

    reasons: dict[str, str]
    edges: tuple[str, ...]


def find_float_zone(model: Any) -> FloatZone:
    """Walks an ONNX graph back from its outputs.

    Args:
        model: ``onnx.ModelProto``; every node has a name of its own (:func:`name_nodes`).

    Returns:
        The zone, in graph order.

    Raises:
        InputError: No path from an output ends at a convolution: not a detector.
    """
    graph = _Graph(model)
    zone: dict[str, str] = {}
    edges: set[str] = set()
    queue = deque(graph.producers(each.name for each in model.graph.output))
    while queue:
        node = queue.popleft()
        if node.name in zone:
            continue
        weighs = graph.weighs(node)
        stops = weighs and not graph.follows_softmax(node)
        zone[node.name] = _reason(node.op_type, weighs, stops)
        if stops:
            edges.add(node.name)
        elif node.op_type != "Shape":
            queue.extend(graph.producers(node.input))
    if not edges:
        raise InputError(
            "the float zone cannot be found: no convolution feeds the graph's outputs",
            "only detectors can be quantized",
        )
    order = [node.name for node in model.graph.node]
    return FloatZone(
        {name: zone[name] for name in order if name in zone},
        tuple(name for name in order if name in edges),
    )


def name_nodes(model: Any) -> None:
    """Gives every node without a name, or with another's, one of its own; in place."""
    seen: set[str] = set()
    for index, node in enumerate(model.graph.node):
        if not node.name or node.name in seen:
            node.name = f"{node.op_type}_{index}"
        seen.add(node.name)


def _reason(op_type: str, weighs: bool, stops: bool) -> str:
    if stops:
        return LAST
    return DFL if weighs else _REASONS.get(op_type, DECODE)


class _Graph:
    """Who makes which tensor, and which tensors depend on the input."""

    def __init__(self, model: Any) -> None:
        self._makers = {
            output: node
            for node in model.graph.node
            for output in node.output
            if node.op_type != "Constant"
        }
        weights = {each.name for each in model.graph.initializer}
        self._varying = {each.name for each in model.graph.input} - weights
        for node in model.graph.node:  # a checked graph lists makers before their readers
            if not self._varying.isdisjoint(node.input):
                self._varying.update(node.output)

    def producers(self, tensors: Any) -> Iterator[Any]:
        """Yields the nodes that make ``tensors``; weights and inputs have none."""
        return (self._makers[name] for name in tensors if name in self._makers)

    def weighs(self, node: Any) -> bool:
        """Says whether a node multiplies an activation with weights."""
        varying = sum(name in self._varying for name in node.input[:2])
        return node.op_type in WEIGHTED and varying == 1

    def follows_softmax(self, node: Any) -> bool:
        """Says whether a convolution reads a Softmax, moved about at the most."""
        current = next(self.producers(node.input[:1]), None)
        while current is not None and current.op_type in MOVES:
            current = next(self.producers(current.input[:1]), None)
        return current is not None and current.op_type == "Softmax"
