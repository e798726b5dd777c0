"""Plans: FP16 written into the graph, TensorRT for RTX without a GPU, and what is refused."""

from __future__ import annotations

import json
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from kedge_builder.compilers import cuda, step
from kedge_builder.compilers.halves import to_half
from kedge_builder.compilers.layers import counted, of_engine
from kedge_builder.compilers.support import check_class
from kedge_builder.compilers.tensorrt import Compiled, Compiler
from kedge_builder.data.datasets import Sample
from kedge_builder.measure.engines import EngineFile
from kedge_builder.progress import Progress
from kedge_builder.quantize.observe import Observations
from kedge_builder.quantize.qdq import QdqOptions, quantize
from kedge_builder.quantize.source import Source
from kedge_builder.workshop import Workshop
from kedge_shared.detections import Array
from kedge_shared.device_classes import RuntimeRange, catalogue, find_class
from kedge_shared.errors import InputError
from kedge_shared.planfile import check_plan, read_header
from kedge_shared.plans import Plan
from kedge_shared.vision import decode, prepare

SIGNED = "5" * 64


@pytest.fixture(scope="module")
def signed(source: Source, observed: Observations) -> bytes:
    options = QdqOptions(form="qdq-s8s8", calibrator="minmax")
    return quantize(source.onnx, source.zone, observed, options)


@pytest.fixture(scope="module")
def typed(signed: bytes) -> Any:
    return to_half(onnx.load_from_string(signed))


# -- FP16 in the graph ---------------------------------------------------------------------------


def test_everything_before_the_decode_is_half_and_the_decode_is_float(
    typed: Any, source: Source
) -> None:
    onnx.checker.check_model(typed, full_check=True)
    shaped = onnx.shape_inference.infer_shapes(typed, strict_mode=True)
    kinds = {each.name: each.type.tensor_type.elem_type for each in shaped.graph.value_info}
    nodes = {node.name: node for node in typed.graph.node}
    decode_nodes = set(source.zone.reasons) - set(source.zone.edges)
    for name, node in nodes.items():
        if node.op_type in {"QuantizeLinear", "Cast"} or node.output[0] not in kinds:
            continue
        wanted = TensorProto.FLOAT if name in decode_nodes else TensorProto.FLOAT16
        assert kinds[node.output[0]] in {wanted, TensorProto.INT64}, name
    # One cast of the image, one for each of the six branches.
    assert Counter(node.op_type for node in typed.graph.node)["Cast"] == 1 + len(source.zone.edges)
    ends = [*typed.graph.input, *typed.graph.output]
    assert {each.type.tensor_type.elem_type for each in ends} == {TensorProto.FLOAT}


def run(model: bytes, batch: Array) -> Array:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {"images": batch})[0], dtype=np.float32)


def found(model: bytes, source: Source, sample: Sample) -> Array:
    batch, place = prepare(sample.frame(), source.given)
    return decode(run(model, batch), place, source.read)


def test_halves_detect_what_the_signed_graph_detects(
    typed: Any, signed: bytes, source: Source, shop: Workshop
) -> None:
    half = typed.SerializeToString()
    pairs = [(found(signed, source, each), found(half, source, each)) for each in shop.data.gate]
    assert sum(len(whole) for whole, _ in pairs) >= 10
    # INT8 rounds some values the other way: a box at the threshold may come or go.
    assert sum(abs(len(whole) - len(halved)) for whole, halved in pairs) <= 2
    moved = [np.abs(whole[:, :4] - halved[:, :4]).max()
             for whole, halved in pairs if len(whole) == len(halved) > 0]  # fmt: skip
    assert len(moved) >= 7 and max(moved) <= 3


def test_a_weight_beyond_half_is_refused() -> None:
    with pytest.raises(InputError, match=r"w holds a number beyond FP16's 65504"):
        to_half(small(scale=1e6))


# -- compiling -----------------------------------------------------------------------------------


def small(*, scale: float = 1.0, operator: str = "Sigmoid", domain: str = "") -> onnx.ModelProto:
    weights = np.full((8, 3, 3, 3), scale, dtype=np.float32)
    nodes = [
        helper.make_node("Conv", ["images", "w"], ["x"], name="conv", kernel_shape=[3, 3]),
        helper.make_node(operator, ["x"], ["output0"], name="last", domain=domain),
    ]
    ends = [
        helper.make_tensor_value_info("images", TensorProto.FLOAT, [1, 3, 32, 32]),
        helper.make_tensor_value_info("output0", TensorProto.FLOAT, [1, 8, 30, 30]),
    ]
    graph = helper.make_graph(
        nodes, "small", ends[:1], ends[1:], [numpy_helper.from_array(weights, "w")]
    )
    imports = [helper.make_opsetid("", 17), helper.make_opsetid("own", 1)]
    return helper.make_model(graph, opset_imports=imports, ir_version=8)


@pytest.fixture(scope="module")
def rtx() -> Compiler:
    pytest.importorskip("tensorrt_rtx", reason="TensorRT for RTX is not installed")
    return Compiler("tensorrt-rtx")


@pytest.fixture(scope="module")
def made(rtx: Compiler) -> Compiled:
    return rtx.compile(small().SerializeToString(), SIGNED, (86, 89, 120), lambda: None)


def test_the_rtx_class_is_compiled_without_a_gpu(
    rtx: Compiler, signed: bytes, source: Source, tmp_path: Path
) -> None:
    engine = EngineFile("engine", tmp_path / "model.onnx")
    engine.path.write_bytes(signed)
    plans = step.compile_plans(find_class("rtx"), (engine,), Progress(quiet=True))
    (plan,), (file,) = plans.plans, plans.files
    assert (file.role, file.path.stat().st_size) == ("plan", plans.size_bytes)
    assert (plan.runtime, plan.version, plan.sm) == ("tensorrt-rtx", rtx.version, (86, 89, 120))
    assert plan.cuda == 13 and plan.flags == ("strongly-typed", "float16")
    check_plan(file.path.read_bytes(), plan)
    told = plans.section
    assert told["precision_read_from"] in {"network", "engine inspector"}
    if told["precision_read_from"] == "network":
        convolutions = [each for each in told["layers"] if each[1] == "CONVOLUTION"]
        int8 = sum(each[2] == "int8" for each in convolutions)
        inner = sum(n.op_type == "Conv" for n in source.onnx.graph.node) - len(
            [n for n in source.onnx.graph.node if n.op_type == "Conv"
             and n.name in source.zone.reasons]
        )  # fmt: skip
        assert int8 == inner
        last = {each[0]: each[2] for each in convolutions if each[0] in source.zone.edges}
        assert set(last.values()) == {"float16"} and len(last) == len(source.zone.edges)


def test_progress_is_told_and_the_same_input_gives_the_same_plan(
    rtx: Compiler, made: Compiled
) -> None:
    steps: list[None] = []
    again = rtx.compile(
        small().SerializeToString(), SIGNED, (86, 89, 120), lambda: steps.append(None)
    )
    assert len(steps) > 3
    assert again.plan == made.plan


@pytest.mark.parametrize(("operator", "domain"), [("Frobnicate", ""), ("Thing", "own")])
def test_an_unknown_operator_is_named(rtx: Compiler, operator: str, domain: str) -> None:
    model = small(operator=operator, domain=domain).SerializeToString()
    with pytest.raises(InputError, match=f"lacks the operator {operator} of node last") as caught:
        rtx.compile(model, SIGNED, (89,), lambda: None)
    assert "\n" not in str(caught.value)


def test_what_is_no_onnx_and_an_sm_that_is_not_compiled_for(rtx: Compiler) -> None:
    with pytest.raises(InputError, match="cannot read the model"):
        rtx.compile(b"garbage", SIGNED, (89,), lambda: None)
    with pytest.raises(InputError, match="does not compile for SM 90"):
        rtx.compile(small().SerializeToString(), SIGNED, (90,), lambda: None)


def test_a_layer_that_needs_a_plugin_is_refused(rtx: Compiler) -> None:
    class Kind:
        name = "PLUGIN_V3"

    class Layer:
        type, name = Kind(), "nms"

    class Network:
        num_layers = 1

        def get_layer(self, at: int) -> Layer:
            return Layer()

    class Parser:
        def __init__(self, *_: Any) -> None: ...

        def parse(self, data: bytes) -> bool:
            return True

    class Module:
        OnnxParser = Parser

    compiler = Compiler("tensorrt-rtx")
    compiler._trt = Module()
    with pytest.raises(InputError, match="needs a plugin of tensorrt-rtx for nms"):
        compiler._parse(b"", Network(), None)


# -- plans that lie ------------------------------------------------------------------------------


def test_a_plan_is_held_against_its_manifest(made: Compiled) -> None:
    data, plan = made.data, made.plan
    check_plan(data, plan)
    check_plan(data, replace(plan, sm=(89,)))
    wrong: list[tuple[bytes, dict[str, Any], str]] = [
        (data[:-1], {}, f"cut off: {len(data) - 1} bytes of {len(data)}"),
        (data[:40], {}, "cut off: 40 bytes"),
        (data + b"x", {}, "cut off"),
        (b"\x7fELF" + data, {}, "no TensorRT plan"),
        (b"", {}, "no TensorRT plan"),
        (data, {"version": "1.6.0"}, "tensorrt-rtx 1.7.1.* manifest says 1.6.0"),
        (data, {"sm": (75,)}, "is for SM 86, 89, 120, not 75"),
        (data, {"runtime": "tensorrt"}, "for tensorrt-rtx, its manifest says tensorrt"),
        (with_code(data, 62), {}, "carries code for the processor"),
    ]
    for bytes_, changes, words in wrong:
        with pytest.raises(InputError, match=words) as caught:
            check_plan(bytes_, replace(plan, **changes))
        assert "\n" not in str(caught.value)
    check_plan(with_code(data, 190), plan)  # a GPU's own code


def with_code(data: bytes, machine: int) -> bytes:
    """The plan with an ELF image of ``machine`` in it, and its length put right."""
    image = b"\x7fELF\x02\x01\x01" + bytes(11) + machine.to_bytes(2, "little") + bytes(40)
    whole = data + image
    return whole[:16] + len(whole).to_bytes(8, "little") + whole[24:]


def test_of_a_classic_plan_no_more_is_claimed_than_was_read() -> None:
    header = read_header(b"ftrt" + bytes(200))
    assert (header.runtime, header.version, header.sm) == ("tensorrt", "", ())


# -- precision -----------------------------------------------------------------------------------


def test_the_inspectors_words() -> None:
    row = {"Name": "conv", "LayerType": "CaskConvolution"}
    words = {"Thirty-two wide channel vectorized row major Int8 format": "int8",
             "Row major linear FP32": "float32", "Channel major FP16 format": "float16",
             "Int32": "other"}  # fmt: skip
    rows = [row | {"Inputs": [{"Format/Datatype": each}]} for each in words]
    layers = of_engine(json.dumps({"Layers": [*rows, "bare name", {"Name": "x"}]}))
    assert [each.precision for each in layers] == [*words.values(), "other", "other"]
    assert counted(layers) == {"float16": 1, "float32": 1, "int8": 1, "other": 3}


# -- machines ------------------------------------------------------------------------------------


class Driver:
    """libcuda with one GPU."""

    def __init__(self, major: int, minor: int, status: int = 0) -> None:
        self.values, self.status = {75: major, 76: minor}, status

    def cuInit(self, flags: int) -> int:
        return self.status

    def cuDeviceGet(self, device: Any, at: int) -> int:
        return 0

    def cuDeviceGetAttribute(self, value: Any, which: int, device: Any) -> int:
        value._obj.value = self.values[which]
        return 0


def test_the_sm_is_the_drivers_word(tmp_path: Path) -> None:
    assert cuda.device_sm(lambda _: Driver(8, 7)) == 87
    assert cuda.device_sm(lambda _: Driver(8, 7, status=100)) is None

    def absent(name: str) -> Any:
        raise OSError(name)

    assert cuda.device_sm(absent) is None
    assert cuda.toolkit_major(tmp_path) is None
    (tmp_path / "version.txt").write_text("CUDA Version 10.2.300\n")
    assert cuda.toolkit_major(tmp_path) == 10
    (tmp_path / "version.json").write_text('{"cuda": {"version": "12.6.11"}}')
    assert cuda.toolkit_major(tmp_path) == 12


def test_classic_tensorrt_compiles_for_its_own_gpu_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    class Module:
        __version__ = "10.3.0"

    monkeypatch.setitem(sys.modules, "tensorrt", Module())
    monkeypatch.setattr(cuda, "device_sm", lambda: 89)
    with pytest.raises(InputError, match=r"tensorrt 10.3.0 compiles .*\(SM 89\), not for SM 87"):
        Compiler("tensorrt").compile(b"", SIGNED, (87,), lambda: None)


def test_a_compiler_that_is_missing_is_named_with_its_mend(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", None)
    with pytest.raises(
        InputError, match=r"not installed here; pip install 'kedge\[tensorrt-rtx\]'"
    ):
        Compiler("tensorrt-rtx")


def test_a_compiler_out_of_the_classes_range_is_refused(rtx: Compiler) -> None:
    other = replace(find_class("rtx"), runtime=RuntimeRange(name="tensorrt-rtx", range=">=2"))
    with pytest.raises(InputError, match=f"{rtx.version} is installed, class rtx takes >=2"):
        step.compiler_of(other)


@pytest.mark.parametrize("wanted", [False, True])
def test_a_class_asks_for_plans_that_newer_releases_load_too(
    source: Source, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, wanted: bool
) -> None:
    asked: list[bool] = []

    class Recorder:
        def compile(self, onnx: bytes, signed: str, sm: Any, tick: Any, **how: Any) -> Compiled:
            asked.append(how["version_compatible"])
            plan = Plan(file=SIGNED, runtime="tensorrt", version="10.3.0", onnx=signed, sm=sm)
            return Compiled(b"ftrt", plan, (), "network", None)

    monkeypatch.setattr(step, "compiler_of", lambda _: Recorder())
    path = tmp_path / "model.onnx"
    path.write_bytes(source.path.read_bytes())
    server = replace(
        find_class("jetson-orin-nx"), plan_sm=(89,), version_compatible=wanted, soc=(), arch=()
    )
    check_class(server)
    step.compile_plans(server, [EngineFile("engine", path)], Progress(quiet=True))
    assert asked == [wanted]


def test_only_classic_tensorrt_makes_version_compatible_plans() -> None:
    for name, plans in (("rtx", (89,)), ("x86-onnxruntime", ()), ("jetson-orin-nx", ())):
        wide = replace(find_class(name), version_compatible=True, plan_sm=plans)
        with pytest.raises(InputError, match="classic TensorRT alone makes"):
            check_class(wide)


def test_classes_the_builder_cannot_build_for_are_refused_in_one_line() -> None:
    refused = {}
    for name, each in catalogue().items():
        try:
            check_class(each)
        except InputError as error:
            refused[name] = str(error)
    assert set(refused) == {"x86-openvino-gpu"}
    assert not any("\n" in each for each in refused.values())
