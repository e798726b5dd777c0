"""Blocks: what mixed precision switches as one, because single convolutions are too many."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from kedge_builder.quantize.floatzone import WEIGHTED, FloatZone

#: ``/model.8/m.0/cv1/conv/Conv``: the exporter writes the module's path into a node's name.
_SCOPE = re.compile(r"^/(model\.\d+(?:/(?:one2one_)?cv[23]\.\d+)?)/")


@dataclass(frozen=True)
class Block:
    """Nodes that are quantized or left float together.

    Attributes:
        name: Module of the detector, or the node itself where no module is known.
        nodes: Names in the float graph, none of the float zone.
        convolutions: How many of them multiply weights.
    """

    name: str
    nodes: tuple[str, ...]
    convolutions: int


def blocks_of(graph: Any, zone: FloatZone) -> tuple[Block, ...]:
    """Groups the nodes outside of the float zone by module, in graph order.

    The head is split by branch: its branches differ most in what they bear. Without module paths
    (a graph from elsewhere) each convolution is a block with the nodes up to the next one.
    """
    members: dict[str, list[Any]] = {}
    current = "input"
    for node in graph.graph.node:
        if node.op_type == "Constant" or node.name in zone.reasons:
            continue
        scope = _SCOPE.match(node.name)
        if scope:
            current = scope[1]
        elif node.op_type in WEIGHTED:
            current = node.name
        members.setdefault(current, []).append(node)
    return tuple(
        Block(name, tuple(n.name for n in nodes), sum(n.op_type in WEIGHTED for n in nodes))
        for name, nodes in members.items()
        if any(n.op_type in WEIGHTED for n in nodes)
    )
