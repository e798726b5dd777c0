"""The last convolutions are fitted to what quantized layers give them, or stay as they are."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from kedge_builder.measure import engines
from kedge_builder.measure.distortion import distortion
from kedge_builder.measure.engines import EngineFile
from kedge_builder.measure.evaluate import Drop
from kedge_builder.measure.surveys import Survey
from kedge_builder.models import export
from kedge_builder.quantize import openvino
from kedge_builder.quantize.candidates import Candidate
from kedge_builder.quantize.floatzone import find_float_zone
from kedge_builder.quantize.observe import Observations
from kedge_builder.quantize.plan import Plan
from kedge_builder.quantize.qdq import Form, QdqOptions, prepare_float, quantize
from kedge_builder.quantize.refit import Fit, Kind, Positions, fit
from kedge_builder.quantize.refitting import left, refit_engine
from kedge_builder.quantize.source import Source
from kedge_builder.quantize.taps import OnnxTaps, collect, kinds
from kedge_builder.report.contents import layers_of
from kedge_builder.workshop import Workshop
from kedge_shared.detections import Array
from kedge_shared.manifest import Head

IMAGES, EACH, WIDTH = 40, 60, 6
KINDS: list[tuple[Kind, int]] = [("class", 3), ("dfl", 4 * 16), ("distance", 4)]


def kernel(out: int, seed: int = 0) -> tuple[Array, Array]:
    rng = np.random.default_rng(seed)
    return (rng.normal(0, 0.7, (out, WIDTH)).astype(np.float32),
            rng.normal(0, 0.3, out).astype(np.float32))  # fmt: skip


def positions(out: int, *, shrink: float = 1.0, shift: float = 0.0, noise: float = 0.0,
              images: int = IMAGES, seed: int = 1) -> Positions:  # fmt: skip
    """Features that an engine gives: shrunk, shifted and noisy, with what float says of the true
    ones.
    """
    rng = np.random.default_rng(seed)
    true = rng.normal(0, 1, (images * EACH, WIDTH)).astype(np.float32)
    weights, bias = kernel(out)
    read = true * shrink + shift + rng.normal(0, 1, true.shape).astype(np.float32) * noise
    scores = rng.uniform(0.01, 1, len(true)).astype(np.float32)
    return Positions(read.astype(np.float32), true @ weights.T + bias, scores,
                     np.repeat(np.arange(images), EACH))  # fmt: skip


@pytest.mark.parametrize(("kind", "out"), KINDS)
def test_a_shift_and_a_shrinkage_are_taken_back(kind: Kind, out: int) -> None:
    found = fit(kind, *kernel(out), positions(out, shrink=0.9, shift=0.2))
    assert found.left < 0.2
    fresh = positions(out, shrink=0.9, shift=0.2, seed=7)

    def gap(weights: Array, bias: Array) -> float:
        said = fresh.features @ weights.T + bias
        if kind != "class":
            # A softmax is blind to what all bins of a side have in common.
            said, wanted = said.reshape(len(said), 4, -1), fresh.answers.reshape(len(said), 4, -1)
            if kind == "dfl":
                said, wanted = (each - each.mean(-1, keepdims=True) for each in (said, wanted))
            return float(np.abs(said - wanted).mean())
        return float(np.abs(1 / (1 + np.exp(-said)) - 1 / (1 + np.exp(-fresh.answers))).mean())

    assert gap(found.weights, found.bias) < 0.5 * gap(*kernel(out))


@pytest.mark.parametrize(("kind", "out"), KINDS)
def test_what_cannot_be_bettered_stays_to_the_bit(kind: Kind, out: int) -> None:
    weights, bias = kernel(out)
    found = fit(kind, weights, bias, positions(out))
    assert found.left == 1.0
    assert found.weights is weights
    assert found.bias is bias


def test_noise_alone_is_not_learnt_from_few_images() -> None:
    """With many classes and few images the old weights are the better ones."""
    weights, bias = kernel(60)
    lost = []
    for seed in range(8):
        seen = positions(60, noise=0.05, images=4, seed=seed)
        few = Positions(seen.features[::8], seen.answers[::8], seen.scores[::8], seen.images[::8])
        found = fit("class", weights, bias, few)
        fresh = positions(60, noise=0.05, seed=100 + seed)
        for each in (found, Fit(weights, bias, 1.0)):
            said = fresh.features @ each.weights.T + each.bias
            p = 1 / (1 + np.exp(-fresh.answers))
            lost.append(float((np.logaddexp(0, said) - p * said).mean()))
    after, before = np.mean(lost[::2]), np.mean(lost[1::2])
    assert after <= before + 1e-3


def test_too_few_positions_or_images_change_nothing() -> None:
    weights, bias = kernel(3)
    assert fit("class", weights, bias, positions(3, shift=0.5, images=3)).weights is weights


@pytest.mark.parametrize("family", ["yolov8n", "yolo11n", "yolo26n"])
@pytest.mark.parametrize("head", ["yolo-v8", "yolo-end2end"])
def test_what_a_convolution_feeds_is_seen_from_the_graph(family: str, head: Head) -> None:
    from ultralytics.nn.tasks import DetectionModel

    model = DetectionModel(f"{family}.yaml", nc=5, verbose=False).eval()
    if head not in export.heads_of(model):
        pytest.skip(f"{family} has no such head")
    graph = prepare_float(export.to_onnx(model, 64, head))
    zone = find_float_zone(graph)
    found = kinds(graph, zone)
    assert sorted(found) == sorted(zone.edges)
    wide = {each.name: tuple(each.dims) for each in graph.graph.initializer}
    nodes = {each.name: each for each in graph.graph.node}
    for edge, kind in found.items():
        outputs = wide[nodes[edge].input[1]][0]
        assert {"class": 5, "dfl": 64, "distance": 4}[kind] == outputs


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino", "tensorrt"])
def test_an_engine_with_a_damaged_head_is_mended(
    shop: Workshop, source: Source, observed: Observations, tmp_path: Path, runtime: str
) -> None:
    """Whoever shifts what the last convolutions read is found out by calibration images alone."""
    broken = onnx.ModelProto()
    broken.CopyFrom(source.onnx)
    held = {each.name: each for each in broken.graph.initializer}
    for node in broken.graph.node:
        # The convolution before the class logits: its bias decides what they read.
        if node.name.endswith("cv3.0.1/conv/Conv"):
            bias = onnx.numpy_helper.to_array(held[node.input[2]]) + 0.5
            held[node.input[2]].CopyFrom(onnx.numpy_helper.from_array(bias, node.input[2]))
    batches = source.batches(shop.data.calibrate)
    here = engines.is_here(runtime)
    if runtime != "openvino":
        form: Form = "qdq-u8s8" if here else "qdq-s8s8"
        options = QdqOptions(form=form, calibrator="minmax", bias_correction=False)
        before: tuple[EngineFile, ...] = (EngineFile("engine", tmp_path / "before.onnx"),)
        before[0].path.write_bytes(quantize(broken, source.zone, observed, options))
        after: tuple[EngineFile, ...] = (EngineFile("engine", tmp_path / "model.onnx"),)
    else:
        made = openvino.quantize(openvino.to_openvino(broken.SerializeToString()), source.zone,
                                 batches)  # fmt: skip
        openvino.save(made, tmp_path / "before.xml")
        before, after = (
            (EngineFile("engine", tmp_path / f"{name}.xml"),
             EngineFile("engine-weights", tmp_path / f"{name}.bin"))
            for name in ("before", "model")
        )  # fmt: skip
    refit_engine(before[0].path, source, batches, tmp_path, lambda: None, literal=not here)
    floats = OnnxTaps(source.onnx, [source.onnx.graph.output[0].name])
    judged = list(source.batches(shop.data.gate[:16]))
    wanted = [floats.read(each)[0] for each in judged]
    apart = []
    for files in (before, after):
        engine = engines.load(runtime, files, 1)
        apart.append(distortion(wanted, [engine.infer(each) for each in judged]))
    assert apart[1] < 0.8 * apart[0]
    shares = left(after[0].path)
    assert set(shares) == set(source.zone.edges)
    damaged = min(shares, key=lambda each: shares[each])
    assert "cv3.0.2" in damaged
    assert shares[damaged] < 0.9


def test_only_places_where_something_may_be_are_collected(shop: Workshop, source: Source) -> None:
    fed = kinds(source.onnx, source.zone)
    ends = {each.name: each for each in source.onnx.graph.node}
    floats = OnnxTaps(source.onnx, [ends[each].output[0] for each in fed])
    inputs = OnnxTaps(source.onnx, [ends[each].input[0] for each in fed])
    seen = collect(fed, floats, inputs, source.batches(shop.data.calibrate[:4]), lambda: None)
    held = {each.name: each for each in source.onnx.graph.initializer}
    for edge, found in seen.items():
        assert (found.scores >= 0.005).all()
        weights, bias = (onnx.numpy_helper.to_array(held[n]) for n in ends[edge].input[1:3])
        said = found.features @ weights[:, :, 0, 0].T + bias
        np.testing.assert_allclose(said, found.answers, atol=1e-3)


def test_the_report_says_what_refitting_brought_for_each_layer(
    shop: Workshop, source: Source
) -> None:
    quantizer = shop.quantizer(shop.options.classes[0], source)
    rows: dict[bool, dict[str, str]] = {}
    for refit in (False, True):
        plan = Plan(calibrator="minmax", refit=refit)
        candidate = Candidate(plan, quantizer.make(plan), Survey(None, 0), Drop(0, 0, 0))  # type: ignore[arg-type]
        found = layers_of(source, candidate, "qdq-u8s8", None)
        rows[refit] = {each.name: each.reason for each in found}
    changed = {name for name, reason in rows[True].items() if reason != rows[False][name]}
    assert changed == set(source.zone.edges)
    shares = left(quantizer.make(Plan(calibrator="minmax", refit=True))[0].path)
    for name in changed:
        assert rows[True][name].startswith(rows[False][name] + "; weights ")
        said = "weights as trained" if shares[name] == 1 else f"{1 - shares[name]:.0%} of the"
        assert said in rows[True][name]
