"""QDQ graphs as each runtime wants them, biases that make up for rounding, and blocks."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import replace
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from kedge_builder.quantize.blocks import blocks_of
from kedge_builder.quantize.float_weights import wants_float_weights
from kedge_builder.quantize.floatzone import WEIGHTED, FloatZone, find_float_zone
from kedge_builder.quantize.observe import Observations, observe
from kedge_builder.quantize.qdq import QdqOptions, quantize, silu_inputs
from kedge_builder.quantize.source import Source
from kedge_shared.detections import Array
from kedge_shared.device_classes import catalogue, find_class
from tests.builder.test_floatzone import scrambled

S8 = QdqOptions(form="qdq-s8s8", calibrator="minmax")
U8 = QdqOptions(form="qdq-u8s8", calibrator="minmax", reduce_range=True)


class Graph:
    """A QDQ graph, read."""

    def __init__(self, data: bytes) -> None:
        self.model = onnx.load_from_string(data)
        nodes = self.model.graph.node
        self.tensors = {
            each.name: numpy_helper.to_array(each) for each in self.model.graph.initializer
        }
        self.makers = {out: node for node in nodes for out in node.output}
        self.nodes = {node.name: node for node in nodes}
        self.readers: dict[str, list[Any]] = {}
        for node in nodes:
            for name in node.input:
                self.readers.setdefault(name, []).append(node)

    def all(self, kind: str) -> list[Any]:
        return [node for node in self.model.graph.node if node.op_type == kind]

    def dequantized(self, tensor: str) -> bool:
        maker = self.makers.get(tensor)
        return maker is not None and maker.op_type == "DequantizeLinear"

    def touches_int8(self, name: str) -> bool:
        node = self.nodes[name]
        return any(self.dequantized(each) for each in node.input)


def convolutions(source: Source) -> list[str]:
    return [node.name for node in source.onnx.graph.node if node.op_type == "Conv"]


def inner(source: Source) -> list[str]:
    return [each for each in convolutions(source) if each not in source.zone.reasons]


@pytest.fixture(scope="module")
def symmetric(source: Source, observed: Observations) -> Graph:
    return Graph(quantize(source.onnx, source.zone, observed, S8))


@pytest.fixture(scope="module")
def in_the_graph(source: Source, observed: Observations) -> Graph:
    """As TensorRT before 10 wants it."""
    return Graph(quantize(source.onnx, source.zone, observed, replace(S8, float_weights=True)))


@pytest.fixture(scope="module")
def unsigned(source: Source, observed: Observations) -> Graph:
    return Graph(quantize(source.onnx, source.zone, observed, U8))


def test_tensorrt_form_has_no_zero_points_and_float_biases(
    source: Source, symmetric: Graph
) -> None:
    pairs = symmetric.all("QuantizeLinear") + symmetric.all("DequantizeLinear")
    assert len(pairs) > 60
    for node in pairs:
        zero = symmetric.tensors[node.input[2]]
        assert zero.dtype == np.int8
        assert not zero.any()
    assert not any(each.dtype == np.int32 for each in symmetric.tensors.values())
    for name in inner(source):
        node = symmetric.nodes[name]
        assert symmetric.dequantized(node.input[0]) and symmetric.dequantized(node.input[1])
        assert symmetric.tensors[node.input[2]].dtype == np.float32


@pytest.mark.parametrize("form", ["symmetric", "unsigned"])
def test_weights_have_a_scale_a_channel_and_activations_one(
    source: Source, form: str, request: pytest.FixtureRequest
) -> None:
    graph: Graph = request.getfixturevalue(form)
    for name in inner(source):
        node = graph.nodes[name]
        activation, weight = (graph.makers[each] for each in node.input[:2])
        whole, scale = (graph.tensors[each] for each in weight.input[:2])
        assert whole.dtype == np.int8
        assert scale.shape == (whole.shape[0],)
        assert len(np.unique(scale)) > 1
        assert graph.tensors[activation.input[1]].size == 1


def test_cpu_form_is_unsigned_with_seven_bit_weights(source: Source, unsigned: Graph) -> None:
    zeros = set()
    for name in inner(source):
        node = unsigned.nodes[name]
        zero = unsigned.tensors[unsigned.makers[node.input[0]].input[2]]
        assert zero.dtype == np.uint8
        zeros.add(int(zero))
        weight = unsigned.makers[node.input[1]]
        assert not unsigned.tensors[weight.input[2]].any()
        assert 60 < np.abs(unsigned.tensors[weight.input[0]].astype(int)).max() <= 64
        assert unsigned.dequantized(node.input[2])
    assert len(zeros) > 3  # SiLU's outputs reach below zero by different shares


def test_eight_bits_are_used_where_they_may_be(source: Source, symmetric: Graph) -> None:
    name = inner(source)[0]
    weight = symmetric.makers[symmetric.nodes[name].input[1]]
    assert np.abs(symmetric.tensors[weight.input[0]].astype(int)).max() == 127


@pytest.mark.parametrize("form", ["symmetric", "unsigned"])
def test_the_float_zone_reads_no_int8_weights_and_writes_no_int8(
    source: Source, form: str, request: pytest.FixtureRequest
) -> None:
    graph: Graph = request.getfixturevalue(form)
    for name in source.zone.reasons:
        node = graph.nodes[name]
        if name in source.zone.edges:  # reads the last INT8 activation; its weights stay float
            assert not any(graph.dequantized(each) for each in node.input[1:])
        else:
            assert not graph.touches_int8(name), name
        readers = [each for out in node.output for each in graph.readers.get(out, [])]
        assert all(each.op_type != "QuantizeLinear" for each in readers), name


@pytest.mark.parametrize("options", [S8, U8])
def test_what_shall_stay_float_does(
    source: Source, observed: Observations, options: QdqOptions
) -> None:
    block = next(each for each in source.blocks if each.convolutions > 2)
    graph = Graph(
        quantize(source.onnx, source.zone, observed, replace(options, keep_float=block.nodes))
    )
    kept = [each for each in block.nodes if each in convolutions(source)]
    for name in kept:
        assert not graph.dequantized(graph.nodes[name].input[1])
    others = [each for each in inner(source) if each not in kept]
    assert len(others) + len(kept) == len(inner(source))
    assert all(graph.dequantized(graph.nodes[each].input[1]) for each in others)


@pytest.mark.parametrize("options", [S8, U8])
def test_the_same_input_gives_the_same_bytes_and_leaves_the_graph_alone(
    source: Source, observed: Observations, options: QdqOptions
) -> None:
    before = source.onnx.SerializeToString()
    first, second = (quantize(source.onnx, source.zone, observed, options) for _ in range(2))
    assert first == second
    assert source.onnx.SerializeToString() == before


def test_tensorrt_parses_its_form(symmetric: Graph) -> None:
    rtx: Any = pytest.importorskip("tensorrt_rtx", reason="TensorRT for RTX is not installed")
    logger = rtx.Logger(rtx.Logger.ERROR)
    builder = rtx.Builder(logger)
    network = builder.create_network(1 << int(rtx.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = rtx.OnnxParser(network, logger)
    parsed = parser.parse(symmetric.model.SerializeToString())
    errors = [parser.get_error(at).desc() for at in range(parser.num_errors)]
    assert parsed, errors


# -- SiLU ---------------------------------------------------------------------------------------


def silu(*more: Any, gate: str = "x") -> onnx.ModelProto:
    nodes = [
        helper.make_node("Identity", ["images"], ["x"], name="make"),
        helper.make_node("Sigmoid", ["x"], ["s"], name="sigmoid"),
        helper.make_node("Mul", [gate, "s"], ["y"], name="mul"),
        *more,
    ]
    ends = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [1]) for n in ("images", "y")]
    return helper.make_model(helper.make_graph(nodes, "silu", ends[:1], ends[1:]))


def test_only_what_a_silu_alone_reads_is_its_input(source: Source) -> None:
    assert silu_inputs(silu()) == {"x"}
    assert silu_inputs(silu(helper.make_node("Relu", ["x"], ["r"]))) == frozenset()
    assert silu_inputs(silu(gate="images")) == frozenset()
    found = silu_inputs(source.onnx)
    assert found == {
        node.output[0] for node in source.onnx.graph.node
        if node.op_type == "Conv" and node.name in {*inner(source)}
    }  # fmt: skip


# -- bias correction ----------------------------------------------------------------------------


def grouped() -> tuple[onnx.ModelProto, FloatZone]:
    """Three convolutions, the middle one in two groups, the last one in the float zone."""
    rng = np.random.default_rng(9)
    widths = {"a": (8, 4), "b": (8, 4), "c": (4, 8)}
    nodes, weights = [], []
    for (name, shape), (read, write) in zip(
        widths.items(), (("images", "ya"), ("ya", "yb"), ("yb", "output0")), strict=True
    ):
        kernel = rng.normal(size=(*shape, 3, 3)).astype(np.float32)
        weights.append(numpy_helper.from_array(kernel, f"{name}.w"))
        bias = rng.normal(size=shape[0]).astype(np.float32)
        weights.append(numpy_helper.from_array(bias, f"{name}.b"))
        groups = {"group": 2} if name == "b" else {}
        nodes.append(
            helper.make_node(
                "Conv",
                [read, f"{name}.w", f"{name}.b"],
                [write],
                name=name,
                kernel_shape=[3, 3],
                **groups,
            )
        )
    graph = helper.make_graph(
        nodes, "grouped",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, [1, 4, 16, 16])],
        [helper.make_tensor_value_info("output0", TensorProto.FLOAT, [1, 4, 10, 10])],
        weights,
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return onnx.shape_inference.infer_shapes(model), FloatZone({"c": "last"}, ("c",))


def only_weights_rounded(data: bytes) -> onnx.ModelProto:
    """Returns the graph with float activations: what is left of the error is the weights'."""
    model = onnx.load_from_string(data)
    quantized = {
        node.output[0]: node.input[0] for node in model.graph.node
        if node.op_type == "QuantizeLinear"
    }  # fmt: skip
    passed = {
        node.output[0]: quantized[node.input[0]] for node in model.graph.node
        if node.op_type == "DequantizeLinear" and node.input[0] in quantized
    }  # fmt: skip
    kept = [
        node for node in model.graph.node
        if node.op_type != "QuantizeLinear" and node.output[0] not in passed
    ]  # fmt: skip
    for node in kept:
        node.input[:] = [passed.get(each, each) for each in node.input]
    del model.graph.node[:]
    model.graph.node.extend(kept)
    return model


def channel_means(model: onnx.ModelProto, batches: list[Array], tensor: str) -> Array:
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    copy.graph.output.append(helper.make_tensor_value_info(tensor, TensorProto.FLOAT, None))
    session = onnxruntime.InferenceSession(
        copy.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    found = [session.run([tensor], {"images": each})[0] for each in batches]
    return np.asarray(np.concatenate(found).mean(axis=(0, 2, 3)), dtype=np.float64)


def test_corrected_biases_make_up_for_rounded_weights() -> None:
    graph, zone = grouped()
    rng = np.random.default_rng(2)
    # Constant images: then every position under a kernel has the mean, and the shift is exact.
    levels = rng.normal(loc=3, size=(6, 1, 4, 1, 1)).astype(np.float32)
    batches = [np.broadcast_to(each, (1, 4, 16, 16)).copy() for each in levels]
    seen = observe(graph, batches, lambda: None, threads=1)
    options = QdqOptions(form="qdq-s8s8", calibrator="minmax", reduce_range=True)
    for tensor, least in (("ya", 0.01), ("yb", 0.01)):
        truth = channel_means(graph, batches, tensor)
        plain, fixed = (
            only_weights_rounded(
                quantize(graph, zone, seen, replace(options, bias_correction=wanted))
            )
            for wanted in (False, True)
        )
        assert np.abs(channel_means(plain, batches, tensor) - truth).max() > least
        scale = np.abs(truth).max()
        error = np.abs(channel_means(fixed, batches, tensor) - truth).max()
        assert error <= 1e-4 * max(1.0, scale), tensor


def test_biases_of_the_float_zone_are_left_alone(
    source: Source, observed: Observations, symmetric: Graph
) -> None:
    plain = Graph(quantize(source.onnx, source.zone, observed, replace(S8, bias_correction=False)))

    def changed(name: str) -> bool:
        biases = [each.tensors[each.nodes[name].input[2]] for each in (plain, symmetric)]
        return bool((biases[0] != biases[1]).any())

    with_bias = [name for name in convolutions(source) if len(plain.nodes[name].input) > 2]
    assert {name for name in with_bias if not changed(name)} == {*source.zone.edges}
    assert {name for name in with_bias if changed(name)} == {*inner(source)}


# -- blocks -------------------------------------------------------------------------------------


def test_blocks_hold_every_quantizable_convolution_once(source: Source) -> None:
    weighted = {n.name for n in source.onnx.graph.node if n.op_type in WEIGHTED}
    held = Counter(name for block in source.blocks for name in block.nodes)
    assert set(held.values()) == {1}
    assert held.keys() & weighted == weighted - source.zone.reasons.keys()
    assert not held.keys() & source.zone.reasons.keys()
    assert sum(each.convolutions for each in source.blocks) == len(inner(source))
    names = [each.name for each in source.blocks]
    assert len(set(names)) == len(names)
    assert all(re.fullmatch(r"model\.\d+(/cv[23]\.\d)?", each) for each in names)
    # The head's three scales have a box and a class branch each.
    assert sum("/" in each for each in names) == 6
    assert source.nodes_of((names[0], names[-1])) == (
        *source.blocks[0].nodes, *source.blocks[-1].nodes,
    )  # fmt: skip


def test_without_module_paths_each_convolution_is_a_block(source: Source) -> None:
    copy, names = scrambled(source.onnx, 3)
    blocks = blocks_of(copy, find_float_zone(copy))
    assert [names[each.name] for each in blocks] == inner(source)
    assert {each.convolutions for each in blocks} == {1}
    held = Counter(name for block in blocks for name in block.nodes)
    assert set(held.values()) == {1}


def test_old_parsers_get_no_int8_constant_and_the_very_same_numbers(
    symmetric: Graph, in_the_graph: Graph
) -> None:
    packed = [node.input[0] for node in symmetric.all("DequantizeLinear")]
    assert any(
        symmetric.tensors[each].dtype == np.int8 for each in packed if each in symmetric.tensors
    )
    made = {node.output[0] for node in in_the_graph.all("QuantizeLinear")}
    assert all(node.input[0] in made for node in in_the_graph.all("DequantizeLinear"))
    batch = np.random.default_rng(5).random((1, 3, 96, 96), dtype=np.float32)
    answers = [literally(each, batch) for each in (symmetric, in_the_graph)]
    np.testing.assert_array_equal(*answers)


def test_of_the_catalogue_xavier_alone_has_such_a_parser() -> None:
    """The Nano's older one reads no INT8 at all."""
    assert {each for each in catalogue() if wants_float_weights(find_class(each))} == {
        "jetson-nano", "jetson-xavier-nx"
    }  # fmt: skip


def literally(graph: Graph, batch: Array) -> Array:
    """Runs a graph operator by operator."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(graph.model.SerializeToString(), options)
    (found,) = session.run(None, {session.get_inputs()[0].name: batch})
    return np.asarray(found)
