"""rknn-toolkit2: from a float detector to an RKNN model, and the simulator of it.

The toolkit takes no whole detector: boxes and scores meet in one Concat, which an NPU has one scale
for. So the graph ends at its last convolutions (the edges of the float zone), and what follows is
numpy's on the board (:mod:`kedge_shared.heads`); here that is checked against the graph itself.
"""

from __future__ import annotations

import json
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from kedge_builder.compilers.environment import Pins
from kedge_builder.quantize.floatzone import FloatZone
from kedge_builder.quantize.ranges import Calibrator
from kedge_builder.quantize.source import Batches, Source
from kedge_shared import heads, wire
from kedge_shared.detections import Array
from kedge_shared.errors import InputError
from kedge_shared.manifest import InputSpec, OutputSpec

VERSION = "2.5.0"
#: What it asks for itself contradicts itself: torch up to 2.4 and GUI OpenCV.
PINS = Pins(
    tool="rknn-toolkit2",
    first=(
        "protobuf==4.25.4", "psutil", "ruamel.yaml", "scipy<1.17", "tqdm",
        "opencv-python-headless<4.12", "fast-histogram", "numpy==1.26.4", "onnx==1.18.0",
        "onnxruntime", "torch==2.13.0", "setuptools<81",
    ),
    alone=(f"rknn-toolkit2=={VERSION}",),
    pythons=((3, 10), (3, 11), (3, 12)),
    size="1.5 GB",
    variable="KEDGE_RKNN_PYTHON",
)  # fmt: skip
#: Kedge's names of calibrators → the toolkit's. Its "mmse" takes hours.
ALGORITHMS: dict[Calibrator, str] = {"minmax": "normal", "entropy": "kl_divergence"}
#: Beside a model: what its simulation is made of, copied with it and never published.
SIMULATION, RECIPE = ".simulation", "recipe.json"
_WORKER = Path(__file__).with_name("rknn_worker.py")
_LOG_LINES = 2


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How a model is simulated.

    Attributes:
        step: The worker's.
        target: SoC.
        divisor: Of pixels.
        float_tensors: Those that stay in 16 bits.
        given: Input.
        read: Output behind :func:`kedge_shared.heads.join`.
        version: Of the toolkit.
    """

    step: str
    target: str
    divisor: float
    given: InputSpec
    read: OutputSpec
    float_tensors: tuple[str, ...] = ()
    version: str = VERSION


def cut(source: Source) -> bytes:
    """Returns the graph up to its last convolutions, outputs as :func:`heads.join` reads them.

    Raises:
        InputError: Its head is none that numpy decodes.
    """
    import onnx
    from onnx import utils

    with tempfile.TemporaryDirectory(prefix="kedge-rknn-") as scratch:
        whole, made = Path(scratch) / "whole.onnx", Path(scratch) / "made.onnx"
        onnx.save(source.onnx, str(whole))
        names = _ordered(source, whole)
        utils.extract_model(str(whole), str(made), [source.onnx.graph.input[0].name], names)
        return made.read_bytes()


def tensors_of(source: Source, blocks: Sequence[str]) -> tuple[str, ...]:
    """Returns what the nodes of blocks give, by which the toolkit names layers."""
    nodes = set(source.nodes_of(tuple(blocks)))
    return tuple(out for node in source.onnx.graph.node if node.name in nodes
                 for out in node.output)  # fmt: skip


def write_images(batches: Batches, folder: Path, tick: Callable[[], None]) -> list[str]:
    """Writes calibration inputs as the toolkit reads them, (1, 3, h, w) uint8 RGB."""
    paths = []
    for at, batch in enumerate(batches):
        path = folder / f"{at:04}.npy"
        np.save(path, heads.to_bytes(batch, batches.given))
        paths.append(str(path))
        tick()
    return paths


def run(python: Path, job: dict[str, Any], folder: Path) -> None:
    """Runs one job to its end.

    Raises:
        InputError: The toolkit does not take the model.
    """
    with Worker(python, job, folder) as worker:
        worker.wait_done()


def calibrate(
    python: Path, source: Source, batches: Batches, algorithm: str, target: str, out: Path,
    tick: Callable[[], None],
) -> None:  # fmt: skip
    """Finds the ranges of every tensor; ``out`` then holds what models are built from.

    Raises:
        InputError: The toolkit does not take the model.
    """
    (out / "net.onnx").write_bytes(cut(source))
    with tempfile.TemporaryDirectory(prefix="kedge-rknn-") as scratch:
        images = write_images(batches, Path(scratch), tick)
        job = {
            "step": "calibrate", "onnx": "net.onnx", "target": target, "images": images,
            "algorithm": algorithm, "divisor": 1 / source.given.scale,
        }  # fmt: skip
        run(python, job, out)


def build(python: Path, recipe: Recipe, out: Path) -> None:
    """Builds ``out``, a model, from what lies in the folder of its simulation.

    Raises:
        InputError: The toolkit does not take the model.
    """
    folder = out.with_suffix(SIMULATION)
    (folder / RECIPE).write_bytes(wire.encode(recipe))
    run(python, _job(recipe) | {"out": str(out.absolute())}, folder)


def simulate(python: Path, recipe: Recipe, folder: Path) -> Worker:
    """Returns the simulator of a model; the caller closes it.

    Raises:
        InputError: The toolkit does not take the model.
    """
    scratch = tempfile.TemporaryDirectory(prefix="kedge-rknn-")
    for each in folder.iterdir():
        (Path(scratch.name) / each.name).symlink_to(each.resolve())
    job = _job(recipe) | {"out": str(Path(scratch.name) / "again.rknn"), "serve": True}
    worker = Worker(python, job, Path(scratch.name), keep=scratch)
    try:
        worker.wait_done()
    except InputError:
        worker.close()
        raise
    return worker


def _job(recipe: Recipe) -> dict[str, Any]:
    return {
        "step": recipe.step, "onnx": "net.onnx", "target": recipe.target,
        "divisor": recipe.divisor, "float_tensors": list(recipe.float_tensors),
    }  # fmt: skip


class Worker:
    """The toolkit's process, in its own environment.

    Args:
        python: Of the environment.
        job: As :mod:`kedge_builder.compilers.rknn_worker` says.
        folder: It works in.
        keep: A folder to remove when it ends.
    """

    def __init__(
        self,
        python: Path,
        job: dict[str, Any],
        folder: Path,
        keep: tempfile.TemporaryDirectory[str] | None = None,
    ) -> None:
        self._keep = keep
        self._scratch = tempfile.TemporaryDirectory(prefix="kedge-rknn-")
        path = Path(self._scratch.name) / "job.json"
        path.write_text(json.dumps(job))
        self._log = Path(self._scratch.name) / "log"
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                # Not resolved: an environment's python is a link, and known by where it lies.
                [str(python.absolute()), "-I", str(_WORKER), str(path)],
                cwd=folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log,
            )  # fmt: skip

    def wait_done(self) -> None:
        """Waits until the job's model is there.

        Raises:
            InputError: The toolkit does not take it.
        """
        self._answer()

    def infer(self, image: Any) -> list[Array]:
        """Simulates one input, (1, h, w, 3) uint8.

        Raises:
            InputError: The simulator failed.
        """
        try:
            self._given.write(json.dumps(list(image.shape)).encode() + b"\n" + image.tobytes())
            self._given.flush()
        except BrokenPipeError:
            pass  # it says why
        found = []
        for shape in self._answer()["shapes"]:
            data = self._said.read(4 * int(np.prod(shape)))
            found.append(np.frombuffer(data, dtype=np.float32).reshape(shape))
        return found

    def close(self) -> None:
        """Ends it."""
        self._process.kill()
        self._process.wait()
        self._given.close()
        self._said.close()
        for each in (self._scratch, self._keep):
            if each is not None:
                each.cleanup()

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def _given(self) -> Any:
        return self._process.stdin

    @property
    def _said(self) -> Any:
        return self._process.stdout

    def _answer(self) -> dict[str, Any]:
        line = self._said.readline()
        found: dict[str, Any] = json.loads(line) if line else {"error": self._last_words()}
        if "error" in found:
            raise InputError(f"rknn-toolkit2 {VERSION} does not take the model: "
                             f"{found['error'][:200]}")  # fmt: skip
        return found

    def _last_words(self) -> str:
        lines = [each for each in self._log.read_text(errors="replace").splitlines() if each]
        return " ".join(lines[-_LOG_LINES:]) or "it ended without a word"


def _edges(graph: Any, zone: FloatZone) -> list[Any]:
    """Returns the outputs of the last convolutions, finest grid first, with their shapes."""
    wanted = {node.output[0] for node in graph.graph.node if node.name in zone.edges}
    found = [each for each in graph.graph.value_info if each.name in wanted]
    if len(found) != len(wanted):
        raise InputError("the shapes of the model's last convolutions are not known")
    return sorted(found, key=lambda each: -_shape(each)[2])


def _shape(value: Any) -> tuple[int, ...]:
    return tuple(each.dim_value for each in value.type.tensor_type.shape.dim)


def _ordered(source: Source, whole: Path) -> list[str]:
    """Returns the outputs' names as boxes and classes in turn, as the graph itself bears out."""
    edges = _edges(source.onnx, source.zone)
    by_grid: dict[tuple[int, ...], list[Any]] = {}
    for each in edges:
        by_grid.setdefault(_shape(each)[2:], []).append(each)
    if any(len(pair) != 2 for pair in by_grid.values()):
        raise InputError(f"the model ends in {len(edges)} convolutions, not in two for each grid")
    for boxes_first in (True, False):
        pairs = (each if boxes_first else each[::-1] for each in by_grid.values())
        ordered = [each for pair in pairs for each in pair]
        if _decodes(source, whole, ordered):
            return [each.name for each in ordered]
    raise InputError(
        "the model's head is none that a board decodes", "YOLOv8, YOLO11 and YOLO26 are"
    )


def _decodes(source: Source, whole: Path, outputs: Sequence[Any]) -> bool:
    """Says whether numpy makes of these outputs what the graph makes of them, on drawn numbers."""
    import onnxruntime as ort
    from onnx import utils

    tail, names = whole.with_name("tail.onnx"), [each.name for each in outputs]
    utils.extract_model(str(whole), str(tail), names, [source.onnx.graph.output[0].name])
    options = ort.SessionOptions()
    options.log_severity_level = 3
    session = ort.InferenceSession(str(tail), options, providers=["CPUExecutionProvider"])
    rng = np.random.default_rng(0)
    drawn = [rng.normal(0, 2, _shape(each)).astype(np.float32) for each in outputs]
    try:
        ours = heads.join(drawn, source.given, source.read)
    except ValueError:
        return False
    theirs = session.run(None, dict(zip(names, drawn, strict=True)))[0]
    if ours.shape != theirs.shape:
        return False
    if source.read.head != "yolo-end2end":  # of weak anchors join gives zeros
        spoken = theirs[:, 4:].max(axis=1, keepdims=True) > heads.FLOOR
        ours, theirs = np.where(spoken, ours, 0), np.where(spoken, theirs, 0)
    return bool(np.allclose(ours, theirs, atol=1e-2, rtol=1e-4))
