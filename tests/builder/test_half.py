"""FP16 for boards whose TensorRT has a flag for it: what is signed, and how it is measured."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import helper, numpy_helper

from kedge_builder.choosing import Chooser
from kedge_builder.compilers.support import check_class
from kedge_builder.measure.engines import EngineFile, load
from kedge_builder.publishing.publish import gather
from kedge_builder.quantize import half
from kedge_builder.quantize.source import Source
from kedge_builder.report.explain import layer
from kedge_builder.report.reading import read_report
from kedge_builder.report.strip import kind_of
from kedge_builder.workshop import Workshop
from kedge_shared.device_classes import RuntimeRange, find_class
from kedge_shared.errors import InputError
from kedge_shared.manifest import Manifest, read_manifest
from kedge_shared.plans import OnDevice
from kedge_shared.resolver import resolve
from tests.conftest import Builder
from tests.shared.boards import NANO

NANO_CLASS = find_class("jetson-nano")


def outputs(model: Any, names: list[str], batch: Any) -> dict[str, Any]:
    """Runs a graph operator by operator and returns tensors from the middle of it."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    had = {each.name for each in copy.graph.output}
    copy.graph.output.extend(
        helper.make_tensor_value_info(each, onnx.TensorProto.FLOAT, None)
        for each in names if each not in had
    )  # fmt: skip
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(
        copy.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return dict(zip(names, session.run(names, {"images": batch}), strict=True))


def frame(source: Source) -> Any:
    size = (1, 3, source.given.height, source.given.width)
    return np.random.default_rng(7).random(size, dtype=np.float32)


def test_everything_in_front_of_the_decode_is_rounded_and_nothing_in_it(source: Source) -> None:
    model = half.rounded(source.onnx)
    decode = set(source.zone.reasons) - set(source.zone.edges)
    before = [each for each in source.onnx.graph.node if each.name not in decode]
    readers = {name for node in model.graph.node for name in node.input}
    read = [
        name for each in before for name in (f"{each.output[0]}/rounded", each.output[0])
        if name in readers and not (name == each.output[0] and f"{name}/rounded" in readers)
    ]  # fmt: skip
    found = outputs(model, read, frame(source))
    assert len(read) > 150
    for name, value in found.items():
        assert np.array_equal(value, value.astype(np.float16).astype(np.float32)), name
    scores = next(each for each in source.onnx.graph.node if each.output[0] == "output0")
    last = outputs(model, ["output0"], frame(source))["output0"]
    assert scores.name in decode
    assert not np.array_equal(last, last.astype(np.float16).astype(np.float32))


def test_weights_are_those_of_fp16_and_the_decodes_stay(source: Source) -> None:
    weights = {each.name: numpy_helper.to_array(each) for each in source.onnx.graph.initializer}
    model = half.rounded(source.onnx)
    made = {each.name: numpy_helper.to_array(each) for each in model.graph.initializer}
    decode = set(source.zone.reasons) - set(source.zone.edges)
    for node in model.graph.node:
        for name in node.input:
            if node.name in decode:
                assert not (name.endswith("/rounded") and name.removesuffix("/rounded") in weights)
            elif node.op_type == "Conv" and name in made:
                assert name.endswith("/rounded")
                given = weights[name.removesuffix("/rounded")]
                assert np.array_equal(made[name], given.astype(np.float16).astype(np.float32))


def test_a_weight_beyond_fp16_is_named(source: Source) -> None:
    model = onnx.ModelProto()
    model.CopyFrom(source.onnx)
    conv = next(each for each in model.graph.node if each.op_type == "Conv")
    weight = next(each for each in model.graph.initializer if each.name == conv.input[1])
    values = numpy_helper.to_array(weight).copy()
    values.flat[0] = 1e5
    weight.CopyFrom(numpy_helper.from_array(values, weight.name))
    with pytest.raises(InputError, match=r"holds a number beyond FP16's 65504"):
        half.marked(model)


def test_only_a_marked_onnx_is_rounded_and_only_where_its_runtime_is_not_here(
    source: Source, tmp_path: Path
) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(half.marked(source.onnx))
    batch = frame(source)

    def run(runtime: str, file: Path) -> Any:
        return load(runtime, [EngineFile("engine", file)], 1).infer(batch)

    floats = run("tensorrt", source.path)
    assert np.array_equal(run("onnxruntime", path), run("onnxruntime", source.path))
    assert not np.array_equal(run("tensorrt", path), floats)
    assert np.abs(run("tensorrt", path)[:, 4:] - floats[:, 4:]).max() < 0.02


def test_a_class_that_bounds_the_opset_gets_it_and_the_same_numbers(shop: Workshop) -> None:
    usual, old = (shop.source(96, opset=each) for each in (None, 13))
    told = [[each.version for each in one.onnx.opset_import if not each.domain]
            for one in (usual, old)]  # fmt: skip
    assert told == [[17], [13]]
    assert np.array_equal(
        *(outputs(each.onnx, ["output0"], frame(usual))["output0"] for each in (usual, old))
    )


def test_the_ladder_of_fp16_has_one_rung(shop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    source = shop.source(96, opset=13)
    budgets = replace(NANO_CLASS.budgets, accuracy_drop=0.0)
    chooser = Chooser(
        shop, replace(NANO_CLASS, budgets=budgets), source, shop.trained, ("mixed", "qat", "float")
    )
    measured = chooser._try

    def loses(plan: Any, quantizer: Any = None) -> Any:
        found = measured(plan, quantizer)
        low = 0.0 if plan.precision == "float" else 0.01
        return replace(found, drop=replace(found.drop, estimate=low * 2, low=low))

    monkeypatch.setattr(chooser, "_try", loses)
    chosen = chooser.choose()
    assert chosen.rungs == ("float",)
    assert chosen.candidate.plan.name == "float"
    assert chosen.reason == "FP16 lost more than 0.00 points, so it stays float"
    assert chosen.candidate.files[0].path == source.path


def test_a_range_that_takes_tensorrt_11_is_refused() -> None:
    for bounds in (">=8.2", ">=10,<12", ">=11.3,<12"):
        wide = replace(NANO_CLASS, runtime=RuntimeRange(name="tensorrt", range=bounds))
        with pytest.raises(InputError, match=r"no flag for it from 11 on.*,<11"):
            check_class(wide)
    check_class(NANO_CLASS)


# -- a whole build ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def built_nano(build: Builder) -> Path:
    (result,) = build("4.0", "jetson-nano", overrides={"undecided": "a board will tell its time"})
    return Path(result.folder)


@pytest.fixture(scope="module")
def nano_manifest(built_nano: Path) -> Manifest:
    return read_manifest((built_nano / "manifest.json").read_bytes())


def test_a_build_for_the_nano_is_a_float_onnx_that_the_board_makes_fp16_of(
    built_nano: Path, nano_manifest: Manifest
) -> None:
    assert nano_manifest.on_device == OnDevice(int8=False, half=True)
    assert nano_manifest.provenance.recipe["plan"] == "float16"
    (engine,) = nano_manifest.engine_files
    model = onnx.load(str(built_nano / engine.name))
    assert [(each.domain, each.version) for each in model.opset_import] == [("", 13)]
    assert not any("Quantize" in node.op_type for node in model.graph.node)
    assert {each.data_type for each in model.graph.initializer} <= {
        onnx.TensorProto.FLOAT, onnx.TensorProto.INT64,
    }  # fmt: skip


def test_its_report_says_what_was_simulated_and_what_was_not_measured(built_nano: Path) -> None:
    report = json.loads((built_nano / "report.json").read_text())
    assert half.SIMULATED in report["notes"]
    assert half.SIMULATED in (built_nano / "report.html").read_text()
    assert report["built"]["latency_p50_ms"] is None
    assert report["precision"]["plan"] == "float16"
    assert 0 < abs(report["drop"]["map50_95"]["estimate"]) < 0.01
    layers = report["precision"]["layers"]
    kinds = [kind_of(each, []) for each in layers]
    assert {"half", "zone"} == set(kinds)
    convolutions = [each for each in layers if each["operator"] == "Conv"]
    floats = [each for each in convolutions if each["precision"] == "float"]
    assert [each["reason"] for each in floats] == [
        "decode: near 640 px FP16 has steps of half a pixel"
    ], "DFL's"
    page = (built_nano / "report.html").read_text()
    assert f"{kinds.count('half')} in FP16." in page
    assert "FP16 quantizes no block" in page
    assert ">FP16</text>" in page
    assert "INT8" not in page.replace("--int8", "")
    answer = layer(read_report(built_nano), convolutions[0]["name"])
    assert answer.sensitivity_of == "not measured: FP16 quantizes no block"
    gather([built_nano.parent])


def test_the_resolver_has_a_nano_build_it_and_an_int8_build_refused(
    nano_manifest: Manifest,
) -> None:
    found = resolve(nano_manifest, NANO)
    assert found.way == "build", found.reason
    assert found.reason == (
        "tensorrt 8.2.1 builds it on the board from the signed ONNX, without a timing cache"
    )
    refused = resolve(replace(nano_manifest, on_device=OnDevice()), NANO)
    assert refused.reason == "SM 53 has no INT8 arithmetic"


def test_what_stays_float_is_not_made_fp16(shop: Workshop) -> None:
    from kedge_builder.compilers.on_board import on_device

    source = shop.source(96, opset=13)
    files = (EngineFile("engine", source.path),)
    assert on_device(NANO_CLASS, files) == OnDevice(int8=False, half=False)
    assert on_device(find_class("jetson-orin-nx"), files) == OnDevice(int8=False)
    assert on_device(find_class("x86-onnxruntime"), files) == OnDevice()
