"""The peers of the builder: what its users would run instead, each with its own defaults.

All see the same number of calibration images of the same pool, none an image that is judged on.
Which of the pool they take is their own affair: Kedge curates, Ultralytics reads the folder in
order, the plain calls get a random draw.
"""

from __future__ import annotations

import logging
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from kedge_builder.data.datasets import Sample
from kedge_builder.models.torchvision_ops import ensure_torchvision_ops
from kedge_builder.models.ultralytics_offline import quiet
from kedge_builder.quantize import openvino
from kedge_builder.quantize.source import Source
from kedge_builder.silence import silence
from kedge_shared.detections import Array


@dataclass(frozen=True)
class Material:
    """What a peer is given.

    Attributes:
        weights: The checkpoint.
        source: The float model that Kedge exported from it.
        pool: Images for calibration, in the order of a seeded draw.
        count: Of them, for each peer.
        classes: Names in the order of the labels.
        reduce_range: Whether the class asks for 7-bit weights.
    """

    weights: Path
    source: Source
    pool: tuple[Sample, ...]
    count: int
    classes: tuple[str, ...]
    reduce_range: bool


#: Writes ``model.onnx`` or ``model.xml`` and ``.bin`` into a folder.
Peer = Callable[[Material, Path], None]


def ultralytics_onnx(given: Material, out: Path) -> None:
    """``yolo export format=onnx int8=True``: MinMax over what multiplies weights."""
    with tempfile.TemporaryDirectory(prefix="kedge-peer-") as work:
        shutil.copyfile(_exported(given, "onnx", Path(work)), out / "model.onnx")


def ultralytics_openvino(given: Material, out: Path) -> None:
    """``yolo export format=openvino int8=True``: NNCF, MIXED, head and sigmoids float."""
    with tempfile.TemporaryDirectory(prefix="kedge-peer-") as work:
        made = next(_exported(given, "openvino", Path(work)).glob("*.xml"))
        shutil.copyfile(made, out / "model.xml")
        shutil.copyfile(made.with_suffix(".bin"), out / "model.bin")


def quantize_static(given: Material, out: Path) -> None:
    """``onnxruntime.quantization.quantize_static`` as it comes."""
    _static(given, out)


def quantize_static_informed(given: Material, out: Path) -> None:
    """The same by someone who has read the manual: the decode float, a scale per channel."""
    from onnxruntime.quantization import QuantType

    _static(
        given,
        out,
        per_channel=True,
        reduce_range=given.reduce_range,
        activation_type=QuantType.QUInt8,
        nodes_to_exclude=list(given.source.zone.reasons),
    )


def nncf_plain(given: Material, out: Path) -> None:
    """``nncf.quantize`` as it comes, but for the count of images."""
    import nncf

    nncf.set_log_level(logging.ERROR)
    model = openvino.to_openvino(given.source.path.read_bytes())
    batches = given.source.batches(given.pool[: given.count])
    with silence():
        made = nncf.quantize(model, nncf.Dataset(batches), subset_size=given.count)
    openvino.save(made, out / "model.xml")


#: Runtime → name in the table → peer.
PEERS: Mapping[str, Mapping[str, Peer]] = {
    "onnxruntime": {
        "ultralytics": ultralytics_onnx,
        "quantize_static": quantize_static,
        "quantize_static informed": quantize_static_informed,
    },
    "openvino": {"ultralytics": ultralytics_openvino, "nncf": nncf_plain},
}


class _Reader:
    """Calibration inputs as onnxruntime's quantizer pulls them."""

    def __init__(self, batches: Iterator[Array], name: str) -> None:
        self._batches, self._name = batches, name

    def __iter__(self) -> Iterator[dict[str, Array]]:
        return ({self._name: each} for each in self._batches)

    def get_next(self) -> dict[str, Array] | None:
        """Returns the next input, or ``None`` at the end."""
        batch = next(self._batches, None)
        return None if batch is None else {self._name: batch}


def _static(given: Material, out: Path, **options: Any) -> None:
    from onnxruntime.quantization import quantize_static as run

    logging.getLogger().setLevel(logging.ERROR)
    batches = iter(given.source.batches(given.pool[: given.count]))
    reader = _Reader(batches, given.source.onnx.graph.input[0].name)
    with silence():
        run(str(given.source.path), str(out / "model.onnx"), reader, **options)


def _exported(given: Material, form: str, work: Path) -> Path:
    """Runs Ultralytics' export on copies: it writes beside the weights and beside the labels."""
    ensure_torchvision_ops()
    quiet()
    from ultralytics import YOLO

    weights = work / "model.pt"
    shutil.copyfile(given.weights, weights)
    data = _copied(given, work / "data")
    size = given.source.given.height
    with silence():
        made = YOLO(str(weights)).export(
            format=form, int8=True, data=str(data), imgsz=size, fraction=given.count
        )
    return Path(made)


def _copied(given: Material, root: Path) -> Path:
    """Copies the pool as a data set whose ``val``, which Ultralytics calibrates on, is the pool."""
    (root / "images").mkdir(parents=True)
    (root / "labels").mkdir()
    for each in given.pool:
        shutil.copyfile(each.image, root / "images" / each.image.name)
        if each.labels.is_file():
            shutil.copyfile(each.labels, root / "labels" / each.labels.name)
    body = {"path": str(root), "train": "images", "val": "images",
            "names": dict(enumerate(given.classes))}  # fmt: skip
    (root / "data.yaml").write_text(yaml.safe_dump(body, sort_keys=False))
    return root / "data.yaml"
