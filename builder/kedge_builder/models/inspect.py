"""What a detector is made of, counted on the model as it is deployed (batch norms folded in)."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kedge_builder.models import architectures, export, weights
from kedge_builder.models.families import Kind, kind_of
from kedge_builder.quantize.floatzone import find_float_zone, name_nodes
from kedge_shared.manifest import Head

#: The zone is the same at every size, and a small graph is quicker to make.
_ZONE_STRIDES = 2


@dataclass(frozen=True)
class Layer:
    """One row of the architecture.

    Attributes:
        index: Position.
        reads: Indices of the layers it reads; -1 is the one before.
        module: Class name.
        parameters: How many.
        output: Shape at the input size.
    """

    index: int
    reads: tuple[int, ...]
    module: str
    parameters: int
    output: tuple[int, ...]


@dataclass(frozen=True)
class HeadFacts:
    """One way to export the model.

    Attributes:
        head: As in the manifest.
        needs_suppression: Overlapping boxes must be dropped after it.
        output: Shape at the input size.
        float_convolutions: In the float zone.
        int8_convolutions: Outside of it.
        zone_nodes: All nodes in the float zone.
    """

    head: Head
    needs_suppression: bool
    output: tuple[int, ...]
    float_convolutions: int
    int8_convolutions: int
    zone_nodes: int


@dataclass(frozen=True)
class Inspection:
    """What ``kedge inspect`` tells.

    Attributes:
        source: File or name.
        trained: It holds weights; an architecture does not.
        kind: Family and scale.
        input_size: Pixels, square.
        parameters: How many.
        gflops: Twice the multiply-adds of one frame, 10⁹, as the installed Ultralytics counts
            them. It counts attention's products too: YOLO26n has 5.48, its published table 5.4.
        classes: Names.
        strides: Input pixels a cell of each output scale.
        layers: In order.
        heads: The preferred one first.
    """

    source: str
    trained: bool
    kind: Kind
    input_size: int
    parameters: int
    gflops: float
    classes: tuple[str, ...]
    strides: tuple[int, ...]
    layers: tuple[Layer, ...]
    heads: tuple[HeadFacts, ...]


def inspect(source: str, size: int) -> Inspection:
    """Reads weights or an architecture and counts what is in it.

    Args:
        source: A checkpoint, a YAML file, or a name that Ultralytics ships.
        size: Input pixels, square.

    Raises:
        InputError: It cannot be read, is no detector, or the size does not fit.
    """
    trained = not architectures.is_architecture(source)
    if trained:
        model = weights.load(Path(source)).model
    else:
        model = architectures.build(architectures.read(source))
    export.check_size(model, size)
    heads = export.heads_of(model)
    from ultralytics.utils.torch_utils import get_flops

    deployed = export.fused(model, heads[0])
    layers = _layers(deployed, size)
    return Inspection(
        source=source,
        trained=trained,
        kind=kind_of(model),
        input_size=size,
        parameters=sum(each.numel() for each in deployed.parameters()),
        gflops=float(get_flops(deployed, size)),
        classes=tuple(str(name) for _, name in sorted(model.names.items())),
        strides=tuple(int(each) for each in model.stride),
        layers=layers,
        heads=tuple(_head(model, each, size) for each in heads),
    )


def _layers(model: Any, size: int) -> tuple[Layer, ...]:
    shapes = _shapes(model, size)
    return tuple(
        Layer(
            index=index,
            reads=tuple(layer.f) if isinstance(layer.f, list) else (layer.f,),
            module=type(layer).__name__,
            parameters=sum(each.numel() for each in layer.parameters()),
            output=shape,
        )
        for index, (layer, shape) in enumerate(zip(model.model, shapes, strict=True))
    )


def _shapes(model: Any, size: int) -> list[tuple[int, ...]]:
    """Runs the model without numbers ("meta" tensors) and returns each layer's output shape."""
    import torch

    model = copy.deepcopy(model)
    head = model.model[-1]
    strides = head.stride.clone()
    model.to("meta")
    head.stride, head.export = strides, True  # anchors are made of the strides' numbers
    found: list[tuple[int, ...]] = []
    for layer in model.model:
        layer.register_forward_hook(lambda _layer, _given, made: found.append(tuple(made.shape)))
    with torch.no_grad():
        model(torch.zeros(1, 3, size, size, device="meta"))
    return found


def _head(model: Any, head: Head, size: int) -> HeadFacts:
    import onnx

    small = _ZONE_STRIDES * int(max(model.stride))
    graph = onnx.load_from_string(export.to_onnx(model, small, head))
    name_nodes(graph)
    zone = find_float_zone(graph)
    convolutions = [each.name for each in graph.graph.node if each.op_type == "Conv"]
    inside = sum(name in zone.reasons for name in convolutions)
    return HeadFacts(
        head=head,
        needs_suppression=head == "yolo-v8",
        output=_shapes(export.fused(model, head), size)[-1],
        float_convolutions=inside,
        int8_convolutions=len(convolutions) - inside,
        zone_nodes=len(zone.reasons),
    )
