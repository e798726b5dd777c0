"""Whole builds of the small fixture for both classes, on real data, in the real runtimes."""

from __future__ import annotations

import errno
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from kedge_builder.publishing.publish import gather
from kedge_shared.errors import InputError, StorageError
from kedge_shared.golden import read_references
from kedge_shared.ids import sha256_hex
from kedge_shared.manifest import read_manifest
from kedge_shared.policy import read_policy
from tests.conftest import FIXTURE, Builder

CLASSES = ["x86-onnxruntime", "x86-openvino"]
FIGURES = ("map50", "map50_95", "latency_p50_ms", "latency_p95_ms", "size_bytes")


@pytest.mark.parametrize("name", CLASSES)
def test_a_build_holds_everything_and_hashes_to_its_manifest(
    built: dict[str, Any], name: str
) -> None:
    folder = built[name].folder
    manifest = read_manifest((folder / "manifest.json").read_bytes())
    assert manifest.device_class == name
    for each in manifest.files:
        data = (folder / each.name).read_bytes()
        assert (sha256_hex(data), len(data)) == (each.sha256, each.length)
    assert manifest.golden.references in {each.sha256 for each in manifest.files}
    assert manifest.provenance.weights_sha256 == sha256_hex(FIXTURE.read_bytes())
    page = (folder / "report.html").read_text()
    assert "<script" not in page
    assert "mAP50-95" in page


@pytest.mark.parametrize("name", CLASSES)
def test_the_report_says_what_was_measured(built: dict[str, Any], name: str) -> None:
    report = json.loads((built[name].folder / "report.json").read_text())
    for side in ("float", "built"):
        assert all(report[side][each] > 0 for each in FIGURES), side
        assert report[side]["latency_p50_ms"] <= report[side]["latency_p95_ms"]
    assert report["float"]["map50"] > 0.95
    assert report["built"]["map50"] > 0.93
    drop = report["drop"]["map50_95"]
    assert drop["low"] <= drop["estimate"] <= drop["high"]
    assert drop["estimate"] == pytest.approx(
        report["float"]["map50_95"] - report["built"]["map50_95"], abs=1e-4
    )
    assert report["images"] == 60
    assert report["runtime"]["name"] in name
    assert report["verdict"] in {"pass", "overridden"}
    assert report["built"]["size_bytes"] < 0.5 * report["float"]["size_bytes"]


def test_layers_are_int8_but_for_the_float_zone(built: dict[str, Any]) -> None:
    report = json.loads((built["x86-onnxruntime"].folder / "report.json").read_text())
    convolutions = [each for each in report["precision"]["layers"] if each["operator"] == "Conv"]
    kept = [each for each in convolutions if each["precision"] == "float"]
    assert len(kept) == 7
    assert all(each["reason"] for each in report["precision"]["layers"])
    engine = onnx.load(str(built["x86-onnxruntime"].folder / "model.onnx"))
    kinds = [node.op_type for node in engine.graph.node]
    assert kinds.count("QuantizeLinear") > 40
    # The convolutions of the zone read float: no DequantizeLinear in front of their weights.
    makers = {out: node.op_type for node in engine.graph.node for out in node.output}
    plain = [
        node for node in engine.graph.node
        if node.op_type == "Conv" and makers.get(node.input[1]) != "DequantizeLinear"
    ]  # fmt: skip
    assert len(plain) == len(kept)


def test_the_proposed_policy_demands_what_the_model_can(built: dict[str, Any]) -> None:
    folder = built["x86-onnxruntime"].folder.parent / "policy"
    policy = read_policy((folder / "policy.json").read_bytes())
    report = json.loads((built["x86-onnxruntime"].folder / "report.json").read_text())
    assert 0.5 < policy.accuracy_floor < report["float"]["label_score"]
    for each in policy.golden:
        assert sha256_hex((folder / "golden" / each.name).read_bytes()) == each.sha256
    assert {label.label for frame in policy.golden for label in frame.labels} == {
        "circle", "square", "triangle", "star",
    }  # fmt: skip


def test_references_are_what_the_artifact_says(built: dict[str, Any]) -> None:
    """Replays a golden frame in a fresh session of the very file."""
    import cv2
    import onnxruntime

    from kedge_shared.vision import decode, prepare

    folder = built["x86-onnxruntime"].folder
    manifest = read_manifest((folder / "manifest.json").read_bytes())
    references = read_references((folder / "golden-references.json").read_bytes())
    policy = read_policy((folder.parent / "policy" / "policy.json").read_bytes())
    session = onnxruntime.InferenceSession(
        str(folder / "model.onnx"), providers=["CPUExecutionProvider"]
    )
    frame = policy.golden[0]
    image = cv2.imread(str(folder.parent / "policy" / "golden" / frame.name))
    batch, place = prepare(image, manifest.input)
    found = decode(session.run(None, {"images": batch})[0], place, manifest.output)
    recorded = references[frame.sha256]
    assert len(found) == len(recorded) > 0
    assert np.abs(found[:, :4] - recorded[:, :4]).max() < 2.0


def test_the_same_input_gives_the_same_bytes(
    build: Builder, built: dict[str, Any], tmp_path: Path
) -> None:
    (again,) = build("1.0", "x86-onnxruntime", cache=tmp_path / "empty")
    for name in ("model.onnx", "golden-references.json"):
        first = (built["x86-onnxruntime"].folder / name).read_bytes()
        assert (again.folder / name).read_bytes() == first


def test_a_missed_budget_leaves_a_report_and_no_manifest(build: Builder) -> None:
    (result,) = build("1.1", budgets={"latency_p95_ms": 0.001}, images=20)
    assert result.decision.verdict == "missed"
    assert (result.folder / "report.json").is_file()
    assert not (result.folder / "manifest.json").exists()
    with pytest.raises(InputError, match="missed its budget and has no manifest"):
        gather([result.folder.parent])


def test_an_override_is_in_the_manifest(build: Builder) -> None:
    reasons = {"latency_p95_ms": "shall be tried on boards", "speed": "noise", "undecided": "few"}
    (result,) = build("1.2", budgets={"latency_p95_ms": 0.001}, overrides=reasons, images=20)
    manifest = read_manifest((result.folder / "manifest.json").read_bytes())
    assert manifest.verdict == "overridden"
    assert ("latency_p95_ms", "shall be tried on boards") in {
        (each.budget, each.reason) for each in manifest.overrides
    }
    gather([result.folder.parent])


def test_too_few_images_are_undecided(build: Builder) -> None:
    (result,) = build("1.3", budgets={"latency_p95_ms": 500, "accuracy_drop": 0.005}, images=12)
    assert result.decision.verdict in {"undecided", "missed"}
    report = json.loads((result.folder / "report.json").read_text())
    assert any("would decide" in each or "drops by" in each for each in report["reasons"])


def test_a_build_that_fails_leaves_nothing(
    build: Builder, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(shutil, "copyfile", full)
    out = tmp_path / "out"
    with pytest.raises(StorageError, match="No space left on device"):
        build("1.4", images=12, out=out)
    assert list(tmp_path.iterdir()) == []


def test_an_older_build_stays_until_the_new_one_is_whole(
    build: Builder, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    (first,) = build("1.5", images=12, out=out)
    before = (first.folder / "report.json").read_bytes()
    monkeypatch.setattr("kedge_builder.report.contents.page", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        build("1.6", images=12, out=out)
    assert (first.folder / "report.json").read_bytes() == before
    assert [each.name for each in tmp_path.iterdir()] == ["out"]


def test_data_of_another_model_is_refused(build: Builder, shapes: Path, tmp_path: Path) -> None:
    other = tmp_path / "data.yaml"
    text = shapes.read_text().replace("0: circle", "0: circle\n  4: extra")
    other.write_text(text)
    with pytest.raises(InputError, match="4 classes, the data 5"):
        build("1.7", data=other)
