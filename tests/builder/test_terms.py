"""How much a release may differ from the one before it: counted as boards count, and stated."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from kedge_builder.judge import predecessor
from kedge_builder.judge.terms import Compared, compared, read_terms, stated, warning
from kedge_shared.detections import Score
from kedge_shared.errors import InputError
from kedge_shared.manifest import Shadow, read_manifest
from tests.conftest import FIXTURE, Builder


def images(hits: int, missed: int, gained: int, count: int = 200) -> list[Score]:
    return [Score(hits, missed, gained)] * count


@pytest.mark.parametrize(
    ("missed", "gained", "differ", "lost"),
    [
        (0, 0, 0.0, 0.0),
        (1, 1, 0.2, 0.0),  # one of ten either way: of another make
        (2, 0, 0.0, 0.2),  # a loss alone is worse, not different
        (0, 2, 0.0, -0.25),  # and a gain alone is better
        (2, 1, 0.2, 1 / 9),
    ],
)
def test_only_what_differs_both_ways_is_disagreement(
    missed: int, gained: int, differ: float, lost: float
) -> None:
    found = compared("1.0", images(10 - missed - gained, missed, gained), seed=0)
    assert found.differ == pytest.approx(differ)
    assert found.lost == pytest.approx(lost)
    assert (found.objects, found.missed, found.gained) == (2000, 200 * missed, 200 * gained)


def test_few_images_state_more_than_was_seen() -> None:
    rows = [Score(9, 1, 0), Score(9, 0, 1), Score(10, 0, 0), Score(10, 0, 0)]
    few, many = compared("1.0", rows, seed=0), compared("1.0", rows * 100, seed=0)
    assert 2 / 40 < many.differ < few.differ
    assert compared("1.0", [], seed=0).differ == 0


def test_terms_never_state_less_than_the_file_says() -> None:
    found = Compared("1.0", 100, 10, 10, 0.123)
    assert stated(Shadow(), found).disagreement == 0.13
    assert stated(Shadow(disagreement=0.3), found).disagreement == 0.3
    assert stated(Shadow(), Compared("1.0", 100, 0, 0, 0.0)) == Shadow()


def test_a_loss_that_boards_would_refuse_is_said_when_it_is_built() -> None:
    worse = Compared("1.0", 100, 15, 2, 0.04)
    assert "loses 13% of what 1.0 sees" in warning(Shadow(), worse)
    assert warning(Shadow(max_loss=0.2), worse) == ""
    assert warning(Shadow(must_hold="nothing"), worse) == ""
    assert warning(Shadow(), Compared("1.0", 100, 2, 15, 0.04)) == ""


def test_terms_are_read_strictly(tmp_path: Path) -> None:
    path = tmp_path / "shadow.yaml"
    path.write_text("must_hold: agreement\nclass_map: {disc: circle}\n")
    assert read_terms(path) == Shadow(must_hold="agreement", class_map={"disc": "circle"})
    for wrong in ("must_hold: everything", "disagreement: 2", "disagrement: 0.1", "[", "1"):
        path.write_text(wrong)
        with pytest.raises(InputError, match="shadow"):
            read_terms(path)


def test_a_build_states_how_it_differs_from_the_one_before(
    build: Builder, built: dict[str, Any], tmp_path: Path
) -> None:
    older = built["x86-onnxruntime"].folder
    common = {"images": 12, "rungs": (), "latency_seconds": 0.1,
              "overrides": {"speed": "noise", "undecided": "few images"}}  # fmt: skip
    (same,) = build("1.0", previous=older.parent, **common)
    assert same.report["previous"] == {
        "release": "1.0", "objects": same.report["previous"]["objects"], "missed": 0, "gained": 0,
        "differ": 0.0,
    }  # fmt: skip
    assert same.report["previous"]["objects"] > 12
    # The older one was trained on less: here its last class is called by another's name.
    renamed = tmp_path / "x86-onnxruntime"
    shutil.copytree(older, renamed)
    body = json.loads((renamed / "manifest.json").read_text())
    classes = body["output"]["classes"]
    body["output"]["classes"] = ["disc", *classes[1:]]
    (renamed / "manifest.json").write_text(json.dumps(body))
    (lost,) = build("2.0", previous=renamed, **common)
    assert lost.report["previous"]["missed"] > 0
    assert any("will hardly take this build" in each for each in lost.report["notes"])
    terms = Shadow(class_map={"disc": classes[0]}, disagreement=0.11)
    (mapped,) = build("2.0", previous=renamed, terms=terms, **common)
    assert mapped.report["previous"]["missed"] == 0
    manifest = read_manifest((mapped.folder / "manifest.json").read_bytes())
    assert manifest.shadow == terms


def test_what_is_no_build_for_the_class_is_refused(
    built: dict[str, Any], tmp_path: Path, build: Builder
) -> None:
    older = built["x86-onnxruntime"].folder
    with pytest.raises(InputError, match=r"is a build for x86-onnxruntime, not for x86-openvino"):
        predecessor.find(older, "x86-openvino")
    with pytest.raises(InputError, match=r"manifest .* cannot be read"):
        build("2.0", previous=tmp_path, weights=FIXTURE)
    bent = tmp_path / "bent"
    shutil.copytree(older, bent)
    engine = bytearray((bent / "model.onnx").read_bytes())
    engine[-1] ^= 1
    (bent / "model.onnx").write_bytes(engine)
    with pytest.raises(InputError, match=r"model.onnx is not what its manifest names"):
        predecessor.find(bent, "x86-onnxruntime")
