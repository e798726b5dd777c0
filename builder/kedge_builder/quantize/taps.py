"""Reads and writes what lies inside of an engine: the last convolutions' inputs and weights."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from kedge_builder.measure.engines import FLOAT32
from kedge_builder.quantize.floatzone import MOVES, FloatZone
from kedge_builder.quantize.refit import Fit, Kind, Positions
from kedge_shared.detections import Array

#: Where float sees less than this nothing is reported, and nothing need be learnt.
_LEAST_SCORE = 0.005


class Taps(Protocol):
    """A model that tells tensors from its inside."""

    def read(self, batch: Array) -> list[Array]:
        """Maps an input (1, 3, h, w) to the tensors, each (1, channels, h', w')."""
        ...


class OnnxTaps:
    """Tensors of an ONNX model.

    Args:
        model: ``onnx.ModelProto``; left as it is.
        tensors: Names.
        literal: Without graph optimizations, to see how kernels that are not here would round.
    """

    def __init__(self, model: Any, tensors: Sequence[str], *, literal: bool = False) -> None:
        import onnx
        import onnxruntime as ort

        copy = onnx.ModelProto()
        copy.CopyFrom(model)
        del copy.graph.output[:]
        for each in dict.fromkeys(tensors):
            copy.graph.output.append(
                onnx.helper.make_tensor_value_info(each, onnx.TensorProto.FLOAT, None)
            )
        options = ort.SessionOptions()
        options.log_severity_level = 3
        if literal:
            options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
        self._session = ort.InferenceSession(
            copy.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
        self._tensors, self._feed = list(tensors), self._session.get_inputs()[0].name

    def read(self, batch: Array) -> list[Array]:
        """See :class:`Taps`."""
        return list(self._session.run(self._tensors, {self._feed: batch}))


class OpenVinoTaps:
    """Inputs of the last convolutions of an OpenVINO model.

    Args:
        path: ``.xml``.
        edges: Names that the convolutions had in ONNX.
    """

    def __init__(self, path: Path, edges: Sequence[str]) -> None:
        import openvino as ov

        core = ov.Core()
        model = core.read_model(str(path))
        found = openvino_convolutions(model, edges)
        before = len(model.outputs)
        model.add_outputs([found[each].input(0).get_source_output() for each in edges])
        self._compiled: Any = core.compile_model(model, "CPU", FLOAT32)
        self._wanted = self._compiled.outputs[before:]

    def read(self, batch: Array) -> list[Array]:
        """See :class:`Taps`."""
        said = self._compiled([batch])
        return [np.asarray(said[each]) for each in self._wanted]


def kinds(graph: Any, zone: FloatZone) -> dict[str, Kind]:
    """Says what each 1x1 convolution at the edge of the float zone feeds, by the graph alone.

    One that feeds a Sigmoid is for classes, one that feeds a Softmax for DFL, others give bare
    distances. One that feeds several is left out, and so is one with a larger kernel.
    """
    readers: dict[str, list[Any]] = {}
    for node in graph.graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    shapes = {each.name: tuple(each.dims) for each in graph.graph.initializer}
    found: dict[str, Kind] = {}
    for node in graph.graph.node:
        if node.name not in zone.edges or shapes.get(node.input[1], ())[2:] != (1, 1):
            continue
        fed = _fed(node, readers)
        if len(node.input) == 3 and not {"Sigmoid", "Softmax"} <= fed:
            found[node.name] = (
                "class" if "Sigmoid" in fed else "dfl" if "Softmax" in fed else "distance"
            )
    return found


def collect(
    kinds_of: Mapping[str, Kind],
    floats: Taps,
    engine: Taps,
    batches: Iterable[Array],
    tick: Callable[[], None],
) -> dict[str, Positions]:
    """Runs both models over calibration images.

    Args:
        kinds_of: Convolutions, in the order in which both taps tell of them.
        floats: Tells their outputs in the float model.
        engine: Tells their inputs in the engine.
        batches: Inputs (1, 3, h, w).
        tick: Called after each.
    """
    parts: dict[str, list[tuple[Array, Array, Array, int]]] = {each: [] for each in kinds_of}
    for index, batch in enumerate(batches):
        answers, features = floats.read(batch), engine.read(batch)
        scores = {
            said.shape[2:]: _scores(said)
            for said, kind in zip(answers, kinds_of.values(), strict=True)
            if kind == "class"
        }
        for edge, read, said in zip(kinds_of, features, answers, strict=True):
            score = scores.get(said.shape[2:])
            if score is None:
                continue
            used = np.flatnonzero(score >= _LEAST_SCORE)
            parts[edge].append((_rows(read)[used], _rows(said)[used], score[used], index))
        tick()
    return {edge: _joined(each) for edge, each in parts.items() if each}


def refitted_onnx(model: Any, fits: Mapping[str, Fit]) -> bytes:
    """Returns a copy of an ONNX model with new weights in the convolutions that are named."""
    import onnx

    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    tensors = {each.name: each for each in copy.graph.initializer}
    for node in copy.graph.node:
        if node.name in fits:
            fit = fits[node.name]
            _, weights, bias = node.input
            for name, value in ((weights, fit.weights[:, :, None, None]), (bias, fit.bias)):
                tensors[name].CopyFrom(onnx.numpy_helper.from_array(value, name))
    return bytes(copy.SerializeToString())


def refitted_openvino(path: Path, fits: Mapping[str, Fit]) -> Any:
    """Reads an OpenVINO model and gives the convolutions that are named new weights."""
    import openvino as ov
    from openvino import opset13 as ops

    model = ov.Core().read_model(str(path))
    for edge, node in openvino_convolutions(model, tuple(fits)).items():
        fit = fits[edge]
        node.input(1).replace_source_output(ops.constant(fit.weights[:, :, None, None]).output(0))
        (add,) = (each.get_node() for each in node.output(0).get_target_inputs())
        at = next(each for each in add.inputs() if each.get_source_output().get_node() != node)
        at.replace_source_output(ops.constant(fit.bias[None, :, None, None]).output(0))
    return model


def openvino_convolutions(model: Any, edges: Sequence[str]) -> dict[str, Any]:
    """Returns the convolutions that came from ``edges``; the biases are Adds of their own there.

    Raises:
        ValueError: One is missing.
    """
    found = {}
    for node in model.get_ops():
        name = str(node.get_friendly_name()).removesuffix("/WithoutBiases")
        if node.get_type_name() == "Convolution" and name in edges:
            found[name] = node
    lost = [each for each in edges if each not in found]
    if lost:
        raise ValueError(f"convolutions are lost in OpenVINO's graph: {', '.join(lost)}")
    return {each: found[each] for each in edges}


def _fed(node: Any, readers: Mapping[str, list[Any]]) -> set[str]:
    """Returns the first operators behind ``node`` that do more than move numbers."""
    queue, seen, fed = deque(node.output), set[str](), set[str]()
    while queue:
        tensor = queue.popleft()
        for each in readers.get(tensor, []):
            if each.op_type not in MOVES and each.op_type != "Concat":
                fed.add(each.op_type)
            elif each.name not in seen:
                seen.add(each.name)
                queue.extend(each.output)
    return fed


def _scores(logits: Array) -> Array:
    """Maps class logits (1, classes, h, w) to the best score at each place, (h * w,)."""
    best = logits[0].max(axis=0).reshape(-1)
    return np.asarray(1 / (1 + np.exp(-np.clip(best, -60, 60))), dtype=np.float32)


def _rows(tensor: Array) -> Array:
    return np.asarray(tensor[0].reshape(tensor.shape[1], -1).T)


def _joined(parts: Sequence[tuple[Array, Array, Array, int]]) -> Positions:
    images = [np.full(len(score), index) for _, _, score, index in parts]
    return Positions(
        np.concatenate([each[0] for each in parts]),
        np.concatenate([each[1] for each in parts]),
        np.concatenate([each[2] for each in parts]),
        np.concatenate(images),
    )
