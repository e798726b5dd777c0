"""Engines from files of one's own, for people with a loop of their own.

Nothing here is signed: whoever names the file vouches for it. Boards of a fleet load by
:func:`kedge_agent.detector.load_detector`, which takes nothing but verified bytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from kedge_agent.blobs import VerifiedBlob, seal
from kedge_agent.detector import Detector, release, started
from kedge_agent.errors import EngineError
from kedge_agent.local_protocol import Slot
from kedge_agent.runtimes.registry import RUNTIMES
from kedge_shared.device_classes import RuntimeRange
from kedge_shared.manifest import FileRole, Head, InputSpec, OutputSpec
from kedge_shared.vision import Frame

_NO_DOCUMENT = "0" * 64
_WARM_UP_RUNS = 3


@dataclass(frozen=True, kw_only=True)
class _Spec:
    runtime: RuntimeRange
    input: InputSpec
    output: OutputSpec


def open_engine(
    path: Path,
    *,
    classes: Sequence[str],
    size: int,
    runtime: str = "onnxruntime",
    head: Head = "yolo-v8",
    conf: float = 0.25,
    threads: int = 1,
    frames: Sequence[Frame] = (),
    name: str = "",
) -> Detector:
    """Loads a detector from a file and warms it up.

    Args:
        path: ``.onnx``, OpenVINO's ``.xml`` with its ``.bin`` beside it, or TensorRT's plan, with
            or without the header that Ultralytics writes in front of it.
        classes: Names in the order of the scores.
        size: Input, square, pixels.
        runtime: ``onnxruntime``, ``openvino``, ``onnxruntime-cuda``, ``tensorrt`` or
            ``tensorrt-rtx``.
        head: How the output is read (kedge_shared.manifest.OutputSpec).
        conf: Confidence below which nothing is reported.
        threads: Threads the engine may use.
        frames: (h, w, 3) BGR uint8 each, to warm up on; without any a grey one is taken.
        name: For people; by default the file's.

    Raises:
        EngineError: The runtime is not known or installed, does not take the engine, or the
            engine fails on a frame.
        StorageError: The file cannot be read.
    """
    port = RUNTIMES.get(runtime)
    if port is None or port.probe() is None:
        raise EngineError(f"runtime {runtime!r} is not on this machine")
    spec = _Spec(
        runtime=RuntimeRange(name=runtime, range=">=0"),
        input=InputSpec(height=size, width=size),
        output=OutputSpec(head=head, classes=tuple(classes), conf=conf),
    )
    blobs: dict[FileRole, VerifiedBlob] = {"engine": seal(path)}
    try:
        if path.suffix == ".xml":
            blobs["engine-weights"] = seal(path.with_suffix(".bin"))
    except BaseException:
        release(blobs["engine"])
        raise
    slot = Slot(
        release=name or path.stem, manifest=_NO_DOCUMENT, policy=_NO_DOCUMENT,
        engine=blobs["engine"].sha256,
    )  # fmt: skip
    seen = frames or [_grey(size)]
    runs = [seen[at % len(seen)] for at in range(max(_WARM_UP_RUNS, len(seen)))]
    return started(port, blobs, spec, slot, runs, threads)


def _grey(size: int) -> Frame:
    return np.full((size, size, 3), 114, dtype=np.uint8)
