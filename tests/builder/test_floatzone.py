"""The float zone: found on graphs of every make, whatever their nodes are called."""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path
from typing import Any

import onnx
import pytest
import yaml
from onnx import TensorProto, helper

from kedge_builder.models import export
from kedge_builder.models.architectures import build, read
from kedge_builder.quantize.floatzone import DECODE, DFL, LAST, find_float_zone, name_nodes
from kedge_shared.errors import InputError
from kedge_shared.manifest import Head
from tests.conftest import FIXTURE, SIZE


def from_yaml(source: str | Path) -> Any:
    return build(read(source))


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
    with pytest.raises(InputError, match="no convolution feeds the graph's outputs"):
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
    from kedge_builder.models import weights

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


@pytest.mark.parametrize(
    ("name", "head", "inside", "kinds"),
    [
        # Three scales, a box and a class branch each; DFL's convolution is a seventh.
        ("yolov8n", "yolo-v8", 7, {"Softmax": 1, "Sigmoid": 1}),
        ("yolov8s", "yolo-v8", 7, {"Softmax": 1, "Sigmoid": 1}),
        ("yolo11n", "yolo-v8", 7, {"Softmax": 1, "Sigmoid": 1}),
        ("yolo11s", "yolo-v8", 7, {"Softmax": 1, "Sigmoid": 1}),
        # YOLO26 has no DFL; the Softmax and MatMuls of its attention lie before the zone.
        ("yolo26n", "yolo-v8", 6, {"Softmax": 0, "Sigmoid": 1, "TopK": 0}),
        ("yolo26n", "yolo-end2end", 6, {"Softmax": 0, "Sigmoid": 1, "TopK": 2}),
        ("yolo26s", "yolo-end2end", 6, {"Softmax": 0, "Sigmoid": 1, "TopK": 2}),
    ],
)
def test_the_zone_of_each_family_whatever_its_names(
    name: str, head: Head, inside: int, kinds: dict[str, int]
) -> None:
    model = onnx.load_from_string(export.to_onnx(from_yaml(f"{name}.yaml"), 64, head))
    name_nodes(model)
    zone = find_float_zone(model)
    ops = {node.name: node.op_type for node in model.graph.node}
    shapes = {each.name: each.dims for each in model.graph.initializer}
    widths = [shapes[node.input[1]][0] for node in model.graph.node if node.name in zone.edges]
    boxes = 4 if "26" in name else 64
    assert widths == [boxes] * 3 + [80] * 3
    assert Counter(ops[each] for each in zone.edges) == {"Conv": 6}
    found = Counter(ops[each] for each in zone.reasons)
    assert found["Conv"] == inside
    assert found["MatMul"] == 0
    assert {kind: found[kind] for kind in kinds} == kinds
    copy, names = scrambled(model, 7)
    assert {names[each] for each in find_float_zone(copy).reasons} == set(zone.reasons)


@pytest.mark.parametrize("family", ["yolov8n", "yolo11n", "yolo26n"])
def test_slimmer_channels_leave_the_zone_as_it_is(family: str, tmp_path: Path) -> None:
    """A pruned detector is one of odd widths: the same graph, other numbers."""
    body = read(f"{family}.yaml").body
    body["scales"] = {"n": [body["scales"]["n"][0], 0.11, 1024]}
    path = tmp_path / "slim.yaml"
    path.write_text(yaml.safe_dump(body))
    zones = []
    for source in (f"{family}.yaml", path):
        model = onnx.load_from_string(export.to_onnx(from_yaml(source), 64))
        name_nodes(model)
        zones.append(find_float_zone(model))
    assert zones[0] == zones[1]


def test_attention_is_no_end_of_the_zone() -> None:
    """A MatMul of two activations multiplies no weights; one with weights does."""
    model = tiny_head()
    nodes = list(model.graph.node)
    at = next(i for i, node in enumerate(nodes) if node.name == "cls_sigmoid")
    nodes[at].input[0] = "c1b"
    nodes.insert(at, helper.make_node("MatMul", ["c1", "c1"], ["c1b"], name="attention"))
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    zone = find_float_zone(model)
    assert zone.edges == ("box_last", "cls_last")
    assert zone.reasons["attention"] == DECODE
    weight = helper.make_tensor("m.w", TensorProto.FLOAT, [8, 8], [1.0] * 64)
    model.graph.initializer.append(weight)
    model.graph.node[at].input[1] = "m.w"
    assert find_float_zone(model).edges == ("box_last", "attention")


def test_a_shape_that_decode_asks_for_does_not_pull_the_backbone_in() -> None:
    model = tiny_head()
    nodes = list(model.graph.node)
    nodes[-1].input[0] = "b6"
    nodes[-1:-1] = [
        helper.make_node("Shape", ["s0"], ["dims"], name="backbone_shape"),
        helper.make_node("Reshape", ["b5", "dims"], ["b6"], name="reshape"),
    ]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    zone = find_float_zone(model)
    assert zone.edges == ("box_last", "cls_last")
    assert "stem" not in zone.reasons


def test_nodes_get_names_of_their_own() -> None:
    model = tiny_head()
    for node in model.graph.node[:4]:
        node.name = ""
    model.graph.node[5].name = model.graph.node[6].name = "same"
    name_nodes(model)
    names = [node.name for node in model.graph.node]
    assert len(set(names)) == len(names)
    assert all(names)
