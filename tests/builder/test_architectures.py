"""Architectures are text by strangers: checked before anything is built, never evaluated."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from kedge_builder.models import architectures, export, weights
from kedge_builder.models.families import Kind, kind_of
from kedge_builder.models.inspect import inspect
from kedge_shared.errors import InputError


def yolo11() -> dict[str, Any]:
    return copy.deepcopy(architectures.read("yolo11n.yaml").body)


def written(folder: Path, body: object) -> Path:
    path = folder / "mine.yaml"
    path.write_text(body if isinstance(body, str) else yaml.safe_dump(body))
    return path


@pytest.mark.parametrize(
    ("name", "kind", "parameters", "gflops", "heads"),
    [
        # Ultralytics publishes 3.2 M / 8.7, 2.6 M / 6.5, 2.4 M / 5.4 (less attention's products).
        ("yolov8n", Kind("YOLOv8", "n"), 3_151_904, 8.74, ["yolo-v8"]),
        ("yolo11n", Kind("YOLO11", "n"), 2_616_248, 6.54, ["yolo-v8"]),
        ("yolo26n", Kind("YOLO26", "n"), 2_408_932, 5.48, ["yolo-v8", "yolo-end2end"]),
    ],
)
def test_what_inspect_counts(
    name: str, kind: Kind, parameters: int, gflops: float, heads: list[str]
) -> None:
    found = inspect(f"{name}.yaml", 640)
    assert (found.kind, found.parameters, found.strides) == (kind, parameters, (8, 16, 32))
    assert found.gflops == pytest.approx(gflops, abs=0.01)
    assert not found.trained
    assert [each.head for each in found.heads] == heads
    shapes = {"yolo-v8": (1, 84, 8400), "yolo-end2end": (1, 300, 6)}
    assert [each.output for each in found.heads] == [shapes[each] for each in heads]
    assert sum(each.parameters for each in found.layers) == parameters
    assert found.layers[0].output == (1, 16, 320, 320)
    assert found.layers[-1].module == "Detect"


def test_the_letter_in_the_name_is_the_scale() -> None:
    model = architectures.build(architectures.read("yolov8s.yaml"))
    assert kind_of(model) == Kind("YOLOv8", "s")
    assert next(model.parameters()).shape[0] == 32


@pytest.mark.parametrize("name", ["yolo11n", "yolo26n"])
def test_a_checkpoint_of_each_family_loads_and_exports_the_same(name: str, tmp_path: Path) -> None:
    model = architectures.build(architectures.read(f"{name}.yaml"))
    path = tmp_path / "trained.pt"
    torch.save({"model": model, "ema": None}, path)
    loaded = weights.load(path)
    assert kind_of(loaded.model) == kind_of(model)
    assert loaded.classes == tuple(map(str, range(80)))
    assert export.to_onnx(loaded.model, 64) == export.to_onnx(model, 64)


def test_a_fused_end_to_end_model_has_but_the_head_it_kept() -> None:
    model = architectures.build(architectures.read("yolo26n.yaml"))
    assert export.heads_of(model) == ("yolo-v8", "yolo-end2end")
    assert export.heads_of(export.fused(model, "yolo-end2end")) == ("yolo-end2end",)
    assert export.heads_of(export.fused(model, "yolo-v8")) == ("yolo-v8",)
    with pytest.raises(InputError, match="has no yolo-end2end head"):
        export.fused(architectures.build(architectures.read("yolo11n.yaml")), "yolo-end2end")


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("yolo11n-seg.yaml", "segmentation models are not supported"),
        ("yolo26n-pose.yaml", "pose models"),
        ("yolov8n-obb.yaml", "oriented box models"),
        ("yolo11n-cls.yaml", "classification models"),
        ("yolov8n-worldv2.yaml", "open vocabulary models"),
        ("rtdetr-l.yaml", "RT-DETR models"),
        ("yolov8n-rtdetr.yaml", "RT-DETR models"),
        ("yolov10n.yaml", "YOLOv10 models"),
        ("yolov5n.yaml", "module C3 is not supported"),
        ("none.yaml", "cannot be read: No such file"),
        ("../yolo11n.yaml", "cannot be read: No such file"),
    ],
)
def test_other_models_are_refused_by_name(name: str, said: str) -> None:
    with pytest.raises(InputError, match=said):
        architectures.read(name)


def test_weights_of_another_head_are_refused_by_name(tmp_path: Path) -> None:
    from ultralytics.nn.tasks import DetectionModel, SegmentationModel

    for model in (
        SegmentationModel("yolo11n-seg.yaml", verbose=False),
        DetectionModel("yolo11n-seg.yaml", verbose=False),
    ):
        path = tmp_path / "other.pt"
        torch.save({"model": model}, path)
        with pytest.raises(InputError, match="segmentation models are not supported"):
            weights.load(path)


def test_a_checkpoint_with_parts_missing_is_named(tmp_path: Path) -> None:
    model = architectures.build(architectures.read("yolo11n.yaml"))
    del model.names
    path = tmp_path / "half.pt"
    torch.save({"model": model}, path)
    with pytest.raises(InputError, match=r"half\.pt hold a damaged model"):
        weights.load(path)


def test_an_architecture_is_no_weights(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is an architecture without weights; train it first"):
        weights.load(written(tmp_path, yolo11()))


def changed(**changes: Any) -> dict[str, Any]:
    return yolo11() | changes


def with_layer(row: list[Any]) -> dict[str, Any]:
    body = yolo11()
    body["backbone"][1] = row
    return body


HOSTILE = "__import__('os').system('touch {proof}')"


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (changed(activation=HOSTILE), "activation .* is not supported"),
        (with_layer([-1, 1, "Conv", [128, 3, HOSTILE]]), "argument .* is not supported"),
        (with_layer([-1, 1, "Conv", ["self", 3]]), "argument 'self' is not supported"),
        (with_layer([-1, 1, "os.system", ["nc"]]), r"module os\.system is not supported"),
        (with_layer([-1, 1, "torchvision.ops.nms", []]), "module torchvision"),
        (with_layer([-1, 1, ["Conv"], []]), "module .* is not supported"),
        (with_layer([-1, 1, "Conv", [{"a": 1}]]), "argument"),
        (with_layer([-1, 10**9, "Conv", [64]]), "repeated 1000000000 times"),
        (with_layer([-1, 1, "Conv", [10**9]]), "argument"),
        (with_layer([7, 1, "Conv", [64]]), "no layer before it"),
        (with_layer([-1, 1]), "layer 1 is not"),
        (changed(nc=0), "number of classes"),
        (changed(nc="80"), "number of classes"),
        (changed(reg_max=10**6), "reg_max"),
        (changed(scales={"n": [1e9, 1, 8]}), "scales"),
        (changed(scales={}), "has no scale"),
        (changed(text_model="clip"), "text_model"),
        (changed(backbone=None), "has no backbone"),
        ({"nc": 3}, "has no backbone"),
        ([1, 2], "holds no architecture"),
        ("a: [", "is no YAML"),
        ("!!python/object/apply:os.system ['touch {proof}']", "is no YAML"),
        ("x" * 70_000, "is larger than 65536 bytes"),
    ],
)
def test_hostile_and_broken_architectures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, body: object, said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    text = body if isinstance(body, str) else yaml.safe_dump(body)
    path = written(tmp_path, text.replace("{proof}", str(tmp_path / "proof")))
    with pytest.raises(InputError, match=said):
        architectures.read(path)
    assert not (tmp_path / "proof").exists()


def test_layers_that_do_not_fit_end_in_one_line(tmp_path: Path) -> None:
    body = yolo11()
    body["head"][1] = [[-1, 2], 1, "Concat", [1]]
    with pytest.raises(InputError, match=r"architecture .*mine\.yaml"):
        architectures.build(architectures.read(written(tmp_path, body)))
