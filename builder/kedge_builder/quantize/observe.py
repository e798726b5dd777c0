"""One pass of the float model over calibration images: what every range and mean is made from.

onnxruntime's histogram calibrators keep every activation of a chunk in memory, count one method
at a time and take 1 s an image at 640 px; here a graph that reduces its own activations is run
once and all calibrators read the same histograms. (60 M activations a frame of YOLOv8n at 640 px.)
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from kedge_builder.quantize.floatzone import WEIGHTED
from kedge_shared.detections import Array

Counts: TypeAlias = npt.NDArray[np.int64]
#: Bins over [-reach, reach]; the reach doubles when a value lies outside, so half of them are used.
BINS = 4096
#: Every so many-eth activation is counted; minimum and maximum are exact. Prime, so that it does
#: not keep step with rows of 20, 40 or 80 values.
_STRIDE = 13


@dataclass
class Histogram:
    """Activations of one tensor.

    Attributes:
        low: Smallest value seen.
        high: Largest.
        reach: The bins span [-reach, reach].
        counts: (BINS,).
    """

    low: float
    high: float
    reach: float
    counts: Counts

    @classmethod
    def empty(cls) -> Histogram:
        """Returns one that has seen nothing."""
        return cls(np.inf, -np.inf, 0.0, np.zeros(BINS, dtype=np.int64))

    @property
    def centres(self) -> npt.NDArray[np.float64]:
        """(BINS,) middle of each bin."""
        width = 2 * self.reach / BINS
        return np.asarray(-self.reach + width * (np.arange(BINS) + 0.5), dtype=np.float64)

    def add(self, values: Array, low: float, high: float) -> None:
        """Counts ``values``; ``low`` and ``high`` are of all, not of the counted ones alone."""
        self.low, self.high = min(self.low, low), max(self.high, high)
        largest = max(abs(low), abs(high))
        if self.reach == 0:
            self.reach = float(largest) or 1e-6
        while self.reach < largest:
            self._double()
        scaled = (values + np.float32(self.reach)) * np.float32(BINS / (2 * self.reach))
        bins = np.clip(scaled.astype(np.int32), 0, BINS - 1)
        self.counts += np.bincount(bins, minlength=BINS)

    def _double(self) -> None:
        half = self.counts.reshape(-1, 2).sum(axis=1)
        self.counts = np.zeros_like(self.counts)
        self.counts[BINS // 4 : BINS // 4 + BINS // 2] = half
        self.reach *= 2


@dataclass(frozen=True)
class Observations:
    """What the calibration images did to the float model.

    Attributes:
        histograms: Tensor → histogram.
        means: Input tensor of a convolution → (channels,) mean over images and positions.
        images: How many were run.
    """

    histograms: dict[str, Histogram]
    means: dict[str, Array]
    images: int

    def save(self, path: Path) -> None:
        """Writes an ``.npz`` that :meth:`load` reads."""
        names, means = sorted(self.histograms), sorted(self.means)
        ends = [[h.low, h.high, h.reach] for h in (self.histograms[n] for n in names)]
        arrays: dict[str, Any] = {
            "names": np.array(names), "ends": np.array(ends),
            "counts": np.stack([self.histograms[n].counts for n in names]),
            "mean_names": np.array(means), "images": np.array(self.images),
            **{f"mean{at}": self.means[name] for at, name in enumerate(means)},
        }  # fmt: skip
        np.savez_compressed(path, **arrays)

    @classmethod
    def load(cls, path: Path) -> Observations:
        """Reads what :meth:`save` wrote; no pickles."""
        with np.load(path, allow_pickle=False) as file:
            rows = zip(file["names"].tolist(), file["ends"].tolist(), file["counts"], strict=True)
            histograms = {
                name: Histogram(low, high, reach, counts.astype(np.int64))
                for name, (low, high, reach), counts in rows
            }
            means = {n: file[f"mean{at}"] for at, n in enumerate(file["mean_names"].tolist())}
            return cls(histograms, means, int(file["images"]))


def observe(
    graph: Any, batches: Iterable[Array], tick: Callable[[], None], *, threads: int = 0
) -> Observations:
    """Runs the float graph over calibration inputs.

    Args:
        graph: From :func:`~kedge_builder.quantize.qdq.prepare_float`; left as it is.
        batches: Inputs (1, 3, h, w).
        tick: Called after each.
        threads: For this pass; 0 takes all cores.
    """
    import onnxruntime as ort

    tensors, inputs = _activations(graph), _convolution_inputs(graph)
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    session = ort.InferenceSession(
        _augmented(graph, tensors, inputs), options, providers=["CPUExecutionProvider"]
    )
    wanted = [each.name for each in session.get_outputs()][-3 * len(tensors) - len(inputs) :]
    feed = session.get_inputs()[0].name
    histograms = {name: Histogram.empty() for name in tensors}
    means = {name: np.float32(0) for name in inputs}
    images = 0
    for batch in batches:
        found = session.run(wanted, {feed: batch})
        for at, name in enumerate(tensors):
            values, low, high = found[3 * at : 3 * at + 3]
            histograms[name].add(values, float(low), float(high))
        for name, mean in zip(inputs, found[3 * len(tensors) :], strict=True):
            means[name] = means[name] + mean
        images += 1
        tick()
    averaged = {name: np.asarray(total / images, dtype=np.float32) for name, total in means.items()}
    return Observations(histograms, averaged, images)


def _activations(graph: Any) -> list[str]:
    """Returns every float tensor that depends on the input, in graph order."""
    from onnx import TensorProto

    kinds = {v.name: v.type.tensor_type.elem_type for v in graph.graph.value_info}
    reached = [each.name for each in graph.graph.input]
    known = set(reached)
    for node in graph.graph.node:
        if known.intersection(node.input):
            fresh = [o for o in node.output if kinds.get(o, TensorProto.FLOAT) == TensorProto.FLOAT]
            known.update(node.output)
            reached += fresh
    return reached


def _convolution_inputs(graph: Any) -> list[str]:
    weights = {each.name for each in graph.graph.initializer}
    return list(dict.fromkeys(
        node.input[0] for node in graph.graph.node
        if node.op_type in WEIGHTED and len(node.input) > 1 and node.input[1] in weights
        and node.op_type == "Conv"
    ))  # fmt: skip


def _augmented(graph: Any, tensors: Sequence[str], inputs: Sequence[str]) -> bytes:
    """Appends to a copy, per tensor: every 13th value, minimum, maximum; per input: its mean."""
    from onnx import ModelProto, TensorProto, helper

    copy = ModelProto()
    copy.CopyFrom(graph)
    constants = {"flat": [-1], "start": [0], "end": [2**31 - 1], "axis": [0], "step": [_STRIDE]}
    for key, value in constants.items():
        copy.graph.initializer.append(
            helper.make_tensor(f"kedge.{key}", TensorProto.INT64, [1], value)
        )

    def output(kind: str, sources: list[str], name: str, **attributes: Any) -> None:
        copy.graph.node.append(helper.make_node(kind, sources, [name], name=name, **attributes))
        copy.graph.output.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, None))

    slicing = [f"kedge.{key}" for key in ("start", "end", "axis", "step")]
    for at, name in enumerate(tensors):
        flat = f"kedge.flat.{at}"
        copy.graph.node.append(helper.make_node("Reshape", [name, "kedge.flat"], [flat], name=flat))
        output("Slice", [flat, *slicing], f"kedge.some.{at}")
        output("ReduceMin", [name], f"kedge.low.{at}", keepdims=0)
        output("ReduceMax", [name], f"kedge.high.{at}", keepdims=0)
    for at, name in enumerate(inputs):
        output("ReduceMean", [name], f"kedge.mean.{at}", axes=[0, 2, 3], keepdims=0)
    return bytes(copy.SerializeToString())
