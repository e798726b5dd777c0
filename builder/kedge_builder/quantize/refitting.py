"""Gives the last convolutions of an engine's file new weights, whatever its runtime."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from kedge_builder.quantize import openvino
from kedge_builder.quantize.refit import Fit, fit
from kedge_builder.quantize.source import Source
from kedge_builder.quantize.taps import (
    OnnxTaps,
    OpenVinoTaps,
    Taps,
    collect,
    kinds,
    refitted_onnx,
    refitted_openvino,
)
from kedge_shared import wire
from kedge_shared.detections import Array

#: Beside an engine: what was left of each convolution's divergence.
_KEPT = "refit.json"


def refit_engine(
    path: Path,
    source: Source,
    batches: Iterable[Array],
    out: Path,
    tick: Callable[[], None],
    *,
    literal: bool = False,
) -> None:
    """Writes ``model.onnx``, or ``model.xml`` and ``.bin``, with a head that is refitted.

    Args:
        path: The quantized engine, ``.onnx`` or ``.xml``.
        source: The float model that it was made from.
        batches: Calibration inputs (1, 3, h, w).
        out: Folder; what came of each convolution is written there too (:func:`left`).
        tick: Called after each input.
        literal: The ONNX is for a runtime that is not here (TensorRT): taken as it is written.
    """
    if path.suffix == ".onnx":
        import onnx

        graph = onnx.load(str(path))
        fits = _fits(
            source,
            lambda edges: OnnxTaps(graph, _inputs(graph, edges), literal=literal),
            batches,
            tick,
        )
        (out / "model.onnx").write_bytes(refitted_onnx(graph, fits))
    else:
        fits = _fits(source, lambda edges: OpenVinoTaps(path, edges), batches, tick)
        openvino.save(refitted_openvino(path, fits), out / "model.xml")
    (out / _KEPT).write_bytes(wire.encode({edge: each.left for edge, each in fits.items()}))


def left(engine: Path) -> Mapping[str, float]:
    """Returns what a refitted engine's convolutions came to.

    Args:
        engine: Its first file, where :func:`refit_engine` wrote it.

    Returns:
        Name in the float graph → divergence from float's answers on images left out, as a share of
        what it was before; 1 where the old weights stay. Empty for an engine that is not refitted.
    """
    path = engine.parent / _KEPT
    if not path.is_file():
        return {}
    return wire.decode(path.read_bytes(), dict[str, float], f"record {path}")


def _fits(
    source: Source,
    tapped: Callable[[list[str]], Taps],
    batches: Iterable[Array],
    tick: Callable[[], None],
) -> dict[str, Fit]:
    from onnx import numpy_helper

    fed = kinds(source.onnx, source.zone)
    nodes = {each.name: each for each in source.onnx.graph.node if each.name in fed}
    weights = {each.name: each for each in source.onnx.graph.initializer}
    floats = OnnxTaps(source.onnx, [nodes[each].output[0] for each in fed])
    seen = collect(fed, floats, tapped(list(fed)), batches, tick)
    fits = {}
    for edge, positions in seen.items():
        kernel, bias = (numpy_helper.to_array(weights[n]) for n in nodes[edge].input[1:3])
        fits[edge] = fit(fed[edge], kernel[:, :, 0, 0], bias, positions)
    return fits


def _inputs(graph: Any, edges: list[str]) -> list[str]:
    found = {each.name: str(each.input[0]) for each in graph.graph.node}
    return [found[each] for each in edges]
