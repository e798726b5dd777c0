"""Which precision each layer has: asked of the engine, or of the typed network it was made of."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

_DTYPES = {
    "INT8": "int8", "HALF": "float16", "FLOAT": "float32", "BF16": "bfloat16", "FP8": "fp8",
    "INT4": "int4",
}  # fmt: skip
#: The inspector's words for a format, such as "Thirty-two wide channel vectorized row major Int8".
_WORDS = (("int8", "int8"), ("fp16|half", "float16"), ("fp32|float", "float32"))


@dataclass(frozen=True)
class Layer:
    """One layer.

    Attributes:
        name: As the engine or the network calls it.
        kind: Likewise.
        precision: Of what it computes on.
    """

    name: str
    kind: str
    precision: str


def of_network(network: Any) -> tuple[Layer, ...]:
    """Reads a strongly typed ``INetworkDefinition``: what reads dequantized numbers is INT8."""
    layers = [network.get_layer(at) for at in range(network.num_layers)]
    dequantized = {each.get_output(0).name for each in layers if each.type.name == "DEQUANTIZE"}
    return tuple(Layer(each.name, each.type.name, _typed(each, dequantized)) for each in layers)


def _typed(layer: Any, dequantized: set[str]) -> str:
    if layer.type.name in {"CONVOLUTION", "DECONVOLUTION", "MATRIX_MULTIPLY"}:
        reads = [layer.get_input(at) for at in range(min(2, layer.num_inputs))]
        if len(reads) == 2 and all(each is not None and each.name in dequantized for each in reads):
            return "int8"
    kind = layer.get_output(0).dtype.name if layer.num_outputs else ""
    return _DTYPES.get(kind, "other")


def of_engine(told: str) -> tuple[Layer, ...]:
    """Reads the inspector's JSON; layers without formats have precision ``other``."""
    body = json.loads(told)
    rows = body.get("Layers", []) if isinstance(body, dict) else []
    return tuple(_row(each) for each in rows)


def _row(row: Any) -> Layer:
    if not isinstance(row, dict):  # without detailed verbosity a layer is its name alone
        return Layer(str(row), "", "other")
    reads = [each.get("Format/Datatype", "") for each in row.get("Inputs", [])]
    word = str(reads[0]).lower() if reads else ""
    found = next((precision for pattern, precision in _WORDS if re.search(pattern, word)), "other")
    return Layer(str(row.get("Name", "")), str(row.get("LayerType", "")), found)


def counted(layers: Iterable[Layer]) -> dict[str, int]:
    """Returns precision → layers, of those that multiply or compute; copies and casts included."""
    return dict(sorted(Counter(each.precision for each in layers).items()))
