"""The float zone: found on graphs of every make, whatever their nodes are called."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import onnx
import pytest
from onnx import TensorProto, helper

from kedge_builder.quantize.floatzone import DFL, LAST, find_float_zone, name_nodes
from tests.conftest import FIXTURE, SIZE


def conv(name: str, source: str, out: str) -> tuple[Any, Any]:
    weight = helper.make_tensor(f"{name}.w", TensorProto.FLOAT, [1, 1, 1, 1], [1.0])
    return helper.make_node("Conv", [source, weight.name], [out], name=name), weight


def tiny_head() -> onnx.ModelProto:
    """Two branches as a detector has them: boxes by DFL, classes by Sigmoid, met in a Concat."""
    nodes, weights = [], []

    def add(pair: tuple[Any, Any]) -> None:
        nodes.append(pair[0])
        weights.append(pair[1])

    def node(kind: str, name: str, ins: list[str], out: str, **more: Any) -> None:
        nodes.append(helper.make_node(kind, ins, [out], name=name, **more))

    add(conv("stem", "images", "s0"))
    node("Sigmoid", "silu_sigmoid", ["s0"], "s1")
    node("Mul", "silu_mul", ["s0", "s1"], "s2")
    add(conv("box_inner", "s2", "b0"))
    add(conv("box_last", "b0", "b1"))
    node("Softmax", "dfl_softmax", ["b1"], "b2", axis=1)
    node("Transpose", "dfl_move", ["b2"], "b3", perm=[0, 1, 2, 3])
    add(conv("dfl_conv", "b3", "b4"))
    node("Mul", "box_scale", ["b4", "b4"], "b5")
    add(conv("cls_inner", "s2", "c0"))
    add(conv("cls_last", "c0", "c1"))
    node("Sigmoid", "cls_sigmoid", ["c1"], "c2")
    node("Concat", "meet", ["b5", "c2"], "output0", axis=1)
    graph = helper.make_graph(
        nodes, "head",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, [1, 1, 8, 8])],
        [helper.make_tensor_value_info("output0", TensorProto.FLOAT, [1, 2, 8, 8])],
        weights,
    )  # fmt: skip
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])


def test_what_stays_float_and_why() -> None:
    zone = find_float_zone(tiny_head())
    assert set(zone.reasons) == {
        "box_last", "dfl_softmax", "dfl_move", "dfl_conv", "box_scale", "cls_last",
        "cls_sigmoid", "meet",
    }  # fmt: skip
    assert zone.edges == ("box_last", "cls_last")
    assert zone.reasons["box_last"] == LAST
    assert zone.reasons["dfl_conv"] == DFL
    assert "one scale" in zone.reasons["meet"]


def test_the_sigmoids_of_silu_are_quantized() -> None:
    assert "silu_sigmoid" not in find_float_zone(tiny_head()).reasons


def test_a_graph_without_convolutions_is_no_detector() -> None:
    model = tiny_head()
    kept = [each for each in model.graph.node if each.op_type != "Conv"]
    del model.graph.node[:]
    model.graph.node.extend(kept)
    with pytest.raises(ValueError, match="no convolution"):
        find_float_zone(model)


def scrambled(model: onnx.ModelProto, seed: int) -> tuple[onnx.ModelProto, dict[str, str]]:
    """Renames every node and tensor but the graph's own ends; returns new name → old name."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    rng = random.Random(seed)
    ends = {each.name for each in (*copy.graph.input, *copy.graph.output)}
    tensors: dict[str, str] = {}

    def renamed(name: str) -> str:
        if not name or name in ends:
            return name
        return tensors.setdefault(name, f"t{rng.getrandbits(64):x}")

    names = {}
    for node in copy.graph.node:
        fresh = f"n{rng.getrandbits(64):x}"
        names[fresh] = node.name
        node.name = fresh
        node.input[:] = [renamed(each) for each in node.input]
        node.output[:] = [renamed(each) for each in node.output]
    for each in copy.graph.initializer:
        each.name = renamed(each.name)
    del copy.graph.value_info[:]
    return copy, names


@pytest.fixture(scope="module")
def detector() -> onnx.ModelProto:
    from kedge_builder.models import export, weights

    model = onnx.load_from_string(export.to_onnx(weights.load(Path(FIXTURE)).model, SIZE))
    name_nodes(model)
    return model


def test_the_zone_of_a_real_detector(detector: onnx.ModelProto) -> None:
    zone = find_float_zone(detector)
    kinds = {node.name: node.op_type for node in detector.graph.node}
    # Three scales, a box and a class branch each.
    assert [kinds[each] for each in zone.edges] == ["Conv"] * 6
    found = [kinds[each] for each in zone.reasons]
    assert found.count("Conv") == 7  # and DFL's
    assert found.count("Softmax") == 1
    assert found.count("Sigmoid") == 1
    assert list(kinds.values()).count("Sigmoid") > 40  # SiLU's, all left to INT8


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_names_do_not_matter(detector: onnx.ModelProto, seed: int) -> None:
    copy, names = scrambled(detector, seed)
    onnx.checker.check_model(copy)
    found = {names[each] for each in find_float_zone(copy).reasons}
    assert found == set(find_float_zone(detector).reasons)


def test_nodes_get_names_of_their_own() -> None:
    model = tiny_head()
    for node in model.graph.node[:4]:
        node.name = ""
    model.graph.node[5].name = model.graph.node[6].name = "same"
    name_nodes(model)
    names = [node.name for node in model.graph.node]
    assert len(set(names)) == len(names)
    assert all(names)
