"""RKNN: where the graph is cut, what the board decodes, the toolkit's environment and its jobs."""

from __future__ import annotations

import io
import json
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from kedge_builder.compilers import environment, rknn
from kedge_builder.compilers.environment import Pins, python_of
from kedge_builder.models import architectures, export
from kedge_builder.progress import Progress
from kedge_builder.quantize.floatzone import find_float_zone
from kedge_builder.quantize.qdq import prepare_float
from kedge_builder.quantize.source import Source
from kedge_shared.errors import InputError, ServiceError, StorageError
from kedge_shared.manifest import Head, InputSpec, OutputSpec

SIZE = 64
QUIET = Progress(quiet=True)


def source_of(name: str, head: Head, classes: int, tmp_path: Path) -> Source:
    architecture = architectures.read(f"{name}.yaml")
    architecture.body["nc"] = classes
    torch.manual_seed(3)
    graph = prepare_float(export.to_onnx(architectures.build(architecture), SIZE, head))
    path = tmp_path / "float.onnx"
    onnx.save(graph, str(path))
    return Source(
        path=path, onnx=graph, zone=find_float_zone(graph),
        given=InputSpec(height=SIZE, width=SIZE),
        read=OutputSpec(head=head, classes=tuple(map(str, range(classes)))),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("name", "head", "classes"),
    [
        ("yolov8n", "yolo-v8", 80),
        ("yolov8n", "yolo-v8", 64),  # as many as a box's bins: shapes do not tell them apart
        ("yolo11n", "yolo-v8", 3),
        ("yolo26n", "yolo-v8", 4),  # one bin a side: nor here
        ("yolo26n", "yolo-end2end", 80),
    ],
)
def test_the_graph_ends_in_boxes_and_classes_in_turn(
    name: str, head: Head, classes: int, tmp_path: Path
) -> None:
    """The cut is refused unless numpy makes of it what the graph makes: the check is the test."""
    source = source_of(name, head, classes, tmp_path)
    made = onnx.load_from_string(rknn.cut(source))
    makers = {node.output[0]: node.name for node in made.graph.node}
    ends = [makers[each.name] for each in made.graph.output]
    kinds = ["cv3" if "cv3" in each else "cv2" for each in ends]
    assert kinds == ["cv2", "cv3"] * 3
    grids = [each.type.tensor_type.shape.dim[2].dim_value for each in made.graph.output]
    assert grids == [8, 8, 4, 4, 2, 2]
    assert not {"TopK", "GatherElements"} & {node.op_type for node in made.graph.node}


def test_another_decoder_than_ours_is_refused(tmp_path: Path) -> None:
    source = source_of("yolov8n", "yolo-v8", 3, tmp_path)
    for node in source.onnx.graph.node:
        if node.op_type == "Sigmoid" and node.name in source.zone.reasons:
            node.op_type = "Tanh"
    with pytest.raises(InputError, match="none that a board decodes"):
        rknn.cut(source)


def test_blocks_are_named_by_what_their_nodes_give(tmp_path: Path) -> None:
    source = source_of("yolov8n", "yolo-v8", 3, tmp_path)
    first, second = source.blocks[:2]
    tensors = rknn.tensors_of(source, [second.name])
    assert tensors and not set(tensors) & set(rknn.tensors_of(source, [first.name]))
    made = {out for node in source.onnx.graph.node for out in node.output}
    assert set(tensors) <= made


# -- the environment ------------------------------------------------------------------------------

PINS = Pins(
    tool="tool", first=("a==1",), alone=("tool==2",),
    pythons=(sys.version_info[:2],), size="1 GB", variable="KEDGE_TOOL_PYTHON",
)  # fmt: skip


class Pip:
    """Makes the files that venv makes, and says what pip says."""

    def __init__(self, *said: str, fails_at: int = -1) -> None:
        self.commands: list[Sequence[str]] = []
        self._said, self._fails_at = said, fails_at

    def __call__(self, command: Sequence[str], hear: Callable[[str], None]) -> int:
        if "venv" in command:
            python = Path(command[-1]) / "bin" / "python"
            python.parent.mkdir(parents=True)
            python.write_text("")
        self.commands.append(command)
        for each in self._said:
            hear(each)
        return int(len(self.commands) - 1 == self._fails_at)


def test_an_environment_is_made_once(tmp_path: Path) -> None:
    pip = Pip("Collecting a")
    python = python_of(PINS, QUIET, tmp_path, pip)
    assert python.is_file()
    assert [each[2:] for each in pip.commands[1:]] == [
        ["pip", "install", "--disable-pip-version-check", "--no-input", "a==1"],
        ["pip", "install", "--disable-pip-version-check", "--no-input", "--no-deps", "tool==2"],
    ]
    assert python_of(PINS, QUIET, tmp_path, pip) == python
    assert len(pip.commands) == 3, "it was made again"
    other = replace(PINS, alone=("tool==3",))
    assert python_of(other, QUIET, tmp_path, pip) != python, "other pins, the same folder"


@pytest.mark.parametrize(
    ("said", "kind", "told"),
    [
        ("ERROR: No matching distribution found for a==1", ServiceError,
         "no package index has its parts"),
        ("Failed to establish a new connection: [Errno 111]", ServiceError, "build once where one"),
        ("OSError: [Errno 28] No space left on device", StorageError, "it takes 1 GB"),
        ("ERROR: something else", ServiceError, "something else"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("at", [0, 1, 2])
def test_half_an_environment_is_none(
    said: str, kind: type[Exception], told: str, at: int, tmp_path: Path
) -> None:
    with pytest.raises(kind) as failed:
        python_of(PINS, QUIET, tmp_path, Pip(said, fails_at=at))
    assert told in str(failed.value) and "\n" not in str(failed.value)
    assert list(tmp_path.iterdir()) == []
    assert python_of(PINS, QUIET, tmp_path, Pip()).is_file()


def test_what_was_killed_while_it_was_made_is_swept_away(tmp_path: Path) -> None:
    young, old = tmp_path / ".making-tool-young", tmp_path / ".making-tool-old"
    for each in (young, old):
        (each / "lib").mkdir(parents=True)
    os.utime(old, (0, 0))
    python_of(PINS, QUIET, tmp_path, Pip())
    assert young.is_dir(), "another process may be at it"
    assert not old.exists()


def test_a_python_without_wheels_is_told_before_anything_is_made(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="tool has no wheel for Python"):
        python_of(replace(PINS, pythons=((3, 8),)), QUIET, tmp_path, Pip())
    assert list(tmp_path.iterdir()) == []


def test_a_ready_python_may_be_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(PINS.variable, sys.executable)
    assert python_of(PINS, QUIET, tmp_path, Pip()) == Path(sys.executable)
    monkeypatch.setenv(PINS.variable, str(tmp_path / "none"))
    with pytest.raises(InputError, match="KEDGE_TOOL_PYTHON names"):
        python_of(PINS, QUIET, tmp_path, Pip())


def test_real_commands_are_heard() -> None:
    heard: list[str] = []
    code = environment._run([sys.executable, "-c", "print('a'); raise SystemExit(3)"], heard.append)
    assert (code, heard) == (3, ["a"])


# -- the toolkit's process, with a toolkit that answers without converting ------------------------

TOOLKIT = """
from pathlib import Path
import numpy as np
print("the toolkit prints what it likes")
class RKNN:
    def __init__(self, verbose): pass
    def config(self, **given): self.given = given; return 0
    def load_onnx(self, path): self.name = Path(path).stem; return 0
    def hybrid_quantization_step1(self, dataset):
        images = Path(dataset).read_text().split()
        shapes = {np.load(each).shape + (str(np.load(each).dtype),) for each in images}
        Path(self.name + ".model").write_text(repr((len(images), shapes, self.given)))
        Path(self.name + ".data").write_text("")
        Path(self.name + ".quantization.cfg").write_text(
            "custom_quantize_layers: {}\\nquantize_parameters:\\n    a:\\n    /b/c_0:\\n")
        return 0
    def hybrid_quantization_step2(self, model, data, cfg):
        self.cfg = Path(cfg).read_text()
        return -1 if "REFUSED" in Path(model).read_text() else 0
    def export_rknn(self, path): Path(path).write_text(self.cfg); return 0
    def init_runtime(self): return 0
    def inference(self, inputs, data_format):
        assert data_format == ["nhwc"]
        return [inputs[0].astype(np.float32) * 2, np.float32([[1.5]])]
    def release(self): pass
"""
#: Isolated as the real one is started: else the worker's own folder would be searched first.
START = (
    "import runpy, sys; sys.path.insert(0, sys.argv[1]); sys.argv[:2] = [];"
    "runpy.run_path(sys.argv[0], run_name='__main__')"
)


@pytest.fixture
def toolkit(tmp_path: Path) -> Path:
    """A Python that has ``rknn.api``: this one, with a folder more."""
    package = tmp_path / "site" / "rknn"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "api.py").write_text(TOOLKIT)
    python = tmp_path / "python"
    start = f'exec {sys.executable} -I -c "{START}" {package.parent} "$@"'
    python.write_text(f"#!/bin/sh\nshift\n{start}\n")
    python.chmod(0o755)
    return python


def recipe(source: Source, *tensors: str) -> rknn.Recipe:
    return rknn.Recipe(
        step="build", target="rk3588", divisor=255, given=source.given, read=source.read,
        float_tensors=tensors,
    )  # fmt: skip


@pytest.fixture
def calibrated(toolkit: Path, source: Source, shop: object, tmp_path: Path) -> Path:
    """A model's simulation folder, beside where the model goes."""
    folder = tmp_path / f"model{rknn.SIMULATION}"
    folder.mkdir()
    batches = source.batches(shop.data.calibrate[:3])  # type: ignore[attr-defined]
    rknn.calibrate(toolkit, source, batches, "normal", "rk3588", folder, lambda: None)
    return folder


def test_calibration_sees_bytes_and_leaves_no_images(calibrated: Path) -> None:
    said = (calibrated / "net.model").read_text()
    assert "(3, {(1, 3, 96, 96, 'uint8')}" in said
    assert "'std_values': [[255.0, 255.0, 255.0]]" in said
    assert "'quantized_algorithm': 'normal'" in said and "'target_platform': 'rk3588'" in said
    assert {each.name for each in calibrated.iterdir()} == {
        "net.onnx", "net.model", "net.data", "net.cfg"
    }  # fmt: skip


def test_blocks_that_stay_float_stand_in_the_toolkit_s_list(
    calibrated: Path, toolkit: Path, source: Source
) -> None:
    model = calibrated.parent / "model.rknn"
    rknn.build(toolkit, recipe(source, "a", "fused away", "/b/c_0"), model)
    assert model.read_text().startswith(
        "custom_quantize_layers:\n    a: float16\n    /b/c_0: float16\nquantize_parameters:"
    )
    rknn.build(toolkit, recipe(source), model)
    assert model.read_text().startswith("custom_quantize_layers: {}\n")
    with pytest.raises(InputError, match="x is no tensor of the calibrated model"):
        rknn.build(toolkit, recipe(source, "x"), model)


def test_folders_and_pythons_may_be_named_from_here(
    calibrated: Path, toolkit: Path, source: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The toolkit's process works in a folder of its own: ``--cache cache`` is not there."""
    monkeypatch.chdir(calibrated.parent)
    rknn.build(Path(toolkit.name), recipe(source), Path("model.rknn"))
    assert Path("model.rknn").is_file()
    rknn.simulate(Path(toolkit.name), recipe(source), Path(calibrated.name)).close()


def test_the_simulator_answers_frame_after_frame(
    calibrated: Path, toolkit: Path, source: Source
) -> None:
    before = {each.name for each in calibrated.iterdir()}
    worker = rknn.simulate(toolkit, recipe(source), calibrated)
    for value in (0, 255, 7):
        image = np.full((1, 2, 3, 3), value, np.uint8)
        first, second = worker.infer(image)
        np.testing.assert_array_equal(first, image.astype(np.float32) * 2)
        assert second.tolist() == [[1.5]]
    worker.close()
    assert {each.name for each in calibrated.iterdir()} == before, "it wrote where models are kept"
    with pytest.raises((InputError, ValueError)):
        worker.infer(image)


def test_what_the_toolkit_refuses_is_told_in_one_line(
    calibrated: Path, toolkit: Path, source: Source
) -> None:
    (calibrated / "net.model").write_text("REFUSED")
    with pytest.raises(InputError, match=r"does not take the model: the build failed") as refused:
        rknn.build(toolkit, recipe(source), calibrated.parent / "model.rknn")
    assert "\n" not in str(refused.value)


def test_a_toolkit_that_dies_says_its_last_words(tmp_path: Path, source: Source) -> None:
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\necho 'no such library' >&2\nexit 1\n")
    python.chmod(0o755)
    with pytest.raises(InputError, match="no such library"):
        rknn.run(python, {"step": "build"}, tmp_path)


def test_the_worker_needs_nothing_of_kedge() -> None:
    text = (Path(rknn.__file__).with_name("rknn_worker.py")).read_text()
    imports = [each for each in text.splitlines() if each.lstrip().startswith(("import", "from"))]
    assert imports and not any("kedge" in each for each in imports)


def test_protocol_lines_are_json() -> None:
    from kedge_builder.compilers import rknn_worker

    said = io.BytesIO()
    rknn_worker._say(said, {"done": "build"})
    assert json.loads(said.getvalue()) == {"done": "build"}
