"""``kedge explain`` answers from the report alone; the page is whole, one file and escaped."""

from __future__ import annotations

import copy
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kedge_builder.report.contents import page
from kedge_builder.report.explain import gist, layer, overview
from kedge_builder.report.explain_cli import explain
from kedge_builder.report.reading import read_report
from kedge_builder.report.strip import kind_of, strip_svg
from kedge_shared.errors import InputError
from tests.builder.test_provenance_and_pictures import _search

CLASS = "x86-onnxruntime"
SECTIONS = ("figures", "candidates", "classes", "pictures", "layers", "sensitivity",
            "calibration", "provenance")  # fmt: skip
HOSTILE = "<script>alert(1)</script>\"'&"
ROW = {"distortion_saved": 0.02, "points_gained": 0.4, "ms_added": 0.25}


@pytest.fixture(scope="module")
def body(built: dict[str, Any]) -> dict[str, Any]:
    """The report of a real build, with one block made float as the ladder would."""
    found = json.loads((built[CLASS].folder / "report.json").read_text())
    precision = found["precision"]
    precision |= {"rungs": ["mixed"], "float_blocks": ["model.1"]}
    precision["sensitivity"] = [{"block": "model.1", **ROW}, {"block": "model.2", **ROW}]
    for each in precision["layers"]:
        if each["block"] == "model.1":
            each |= {"precision": "float", "reason": "mixed precision: float takes 0.02 off"}
    return dict(found)


@pytest.fixture
def folder(body: dict[str, Any], tmp_path: Path) -> Path:
    (tmp_path / CLASS).mkdir()
    (tmp_path / CLASS / "report.json").write_text(json.dumps(body))
    return tmp_path


def picture_of(body: dict[str, Any], classes: tuple[str, ...] = ("circle",)) -> str:
    found = np.array([[4, 4, 20, 20, 0.9, 0]], dtype=np.float32)
    return page(body, [(np.zeros((32, 32, 3), dtype=np.uint8), found, found)], classes)


def test_the_overview_holds_verdict_plan_blocks_and_every_layer(
    folder: Path, body: dict[str, Any]
) -> None:
    found = overview(read_report(folder))
    assert (found.verdict, found.reasons) == (body["verdict"], body["reasons"])
    assert found.plan == body["calibration"]["chosen"]
    assert [each.taken for each in found.candidates].count(True) == 1
    (block,) = found.float_blocks
    assert block.measured is not None
    assert (block.name, block.layers, block.measured.ms_added) == ("model.1", 3, 0.25)
    assert sum(each.layers for each in found.layers) == len(body["precision"]["layers"])
    assert {"mixed precision"} == {e.reason for e in found.layers if e.reason.startswith("mixed")}
    assert found.search is None
    assert found.provenance["weights"] == body["provenance"]["weights"]


def test_a_layer_says_precision_reason_block_and_what_float_would_do(folder: Path) -> None:
    report = read_report(folder / CLASS)
    kept = layer(report, "/model.1/conv/Conv")
    assert [each.precision for each in kept.layers] == ["float"]
    assert kept.sensitivity is not None
    assert (kept.block, kept.sensitivity.points_gained) == ("model.1", 0.4)
    zone = next(e for e in report.precision.layers if not e.block and e.operator == "Conv")
    assert layer(report, zone.name).sensitivity_of.startswith("not measured: the float zone")
    assert layer(report, "model.3").sensitivity_of == "not measured for this block"


def test_a_block_names_its_layers_and_a_slip_the_near_ones(folder: Path) -> None:
    report = read_report(folder)
    assert {each.operator for each in layer(report, "model.1").layers} == {"Conv", "Sigmoid", "Mul"}
    with pytest.raises(InputError, match=r"near: /model\.1/conv/Conv") as caught:
        layer(report, "/model.1/conv/Con")
    assert caught.value.exit_code == 2
    with pytest.raises(InputError, match="no layer or block ''"):
        layer(report, "")


def test_a_search_is_said_and_which_graph_the_blocks_were_measured_on(
    folder: Path, body: dict[str, Any]
) -> None:
    (folder / CLASS / "report.json").write_text(json.dumps({**body, "search": _search()}))
    report = read_report(folder)
    found = overview(report).search
    assert found is not None
    assert found.picked == "pruning step 1, 640 px, int8+mixed-1"
    assert found.points + found.failed == len(report.search["trials"])
    assert layer(report, "model.1").sensitivity_of.endswith(f"took {found.picked}")


def test_reasons_are_counted_without_their_figures() -> None:
    assert gist("outside of the zone: INT8; float would take 0.1 off for 1 ms") == (
        "outside of the zone: INT8"
    )
    assert gist("last convolution; weights fitted: 3% gone") == "last convolution"
    assert gist("DFL: a distribution") == "DFL: a distribution"


def test_a_folder_of_two_builds_none_or_a_torn_report_is_refused_by_name(folder: Path) -> None:
    shutil.copytree(folder / CLASS, folder / "other")
    with pytest.raises(InputError, match=f"2 builds; name one of .*other, .*{CLASS}"):
        read_report(folder)
    (folder / "other" / "report.json").write_text('{"model": "a"')
    with pytest.raises(InputError, match="cannot be read"):
        read_report(folder / "other")
    (folder / CLASS / "nothing").mkdir()
    with pytest.raises(InputError, match="holds no build"):
        read_report(folder / CLASS / "nothing")


def test_the_command_prints_no_terminal_commands_and_json_is_whole(
    folder: Path, body: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    changed = {**body, "notes": ["\x1b[2Jgone"]}
    (folder / CLASS / "report.json").write_text(json.dumps(changed))
    explain(folder, layer_name="", as_json=False)
    said = capsys.readouterr().out
    assert "\x1b" not in said
    assert "model.1 (3 layers): +0.0200 distortion saved" in said
    explain(folder, layer_name="/model.2/cv1/conv/Conv", as_json=True)
    assert json.loads(capsys.readouterr().out)["sensitivity"]["block"] == "model.2"


def test_explaining_imports_nothing_heavy() -> None:
    code = (
        "import sys, kedge_builder.report.explain_cli\n"
        "print([n for n in ('torch', 'numpy', 'onnx', 'cv2', 'jinja2') if n in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_page_is_one_file_without_script(body: dict[str, Any]) -> None:
    text = picture_of(body)
    for each in SECTIONS:
        assert f'<section id="{each}"' in text, each
    assert 'id="search"' not in text
    assert "Accuracy against size" in text
    assert "<script" not in text
    outside = re.findall(r'(?:src|href|srcset|data|action)="(?!data:image/)[^"]*"', text)
    assert outside == []
    assert re.findall(r"https?://(?!www\.w3\.org/2000/svg)", text) == []
    assert "url(" not in text
    assert "@import" not in text


def test_the_page_shows_a_search_only_where_there_was_one(body: dict[str, Any]) -> None:
    text = picture_of({**body, "search": _search()})
    assert '<section id="search"' in text
    assert "picked: pruning step 1, 640 px, int8+mixed-1" in text
    assert "sqlite" not in text
    assert "Accuracy against size" not in text
    assert "measured before the search took pruning step 1, 640 px, int8+mixed-1" in text


def test_nothing_hostile_gets_out_of_its_place(body: dict[str, Any]) -> None:
    bad = copy.deepcopy(body)
    bad["drop"]["per_class"] = {HOSTILE: 0.02}
    bad |= {"model": HOSTILE, "notes": [HOSTILE], "machine": HOSTILE, "search": _search()}
    bad["reasons"], bad["provenance"] = [HOSTILE], {HOSTILE: HOSTILE}
    bad["overrides"] = [{"budget": HOSTILE, "reason": HOSTILE}]
    bad["calibration"] |= {"why": HOSTILE, "chosen": HOSTILE, "reasons": [HOSTILE]}
    bad["calibration"]["candidates"][0]["name"] = HOSTILE
    for each in bad["precision"]["layers"]:
        each |= {"name": HOSTILE, "block": HOSTILE, "reason": HOSTILE}
    bad["precision"]["sensitivity"][0]["block"] = HOSTILE
    for search in (bad["search"], {}):
        text = picture_of({**bad, "search": search}, (HOSTILE,))
        assert "<script" not in text
        assert "alert(1)" in text


def test_the_strip_tells_choice_from_zone() -> None:
    rows = [
        {"name": "a", "precision": "float", "block": "b0"},
        {"name": "b", "precision": "int8", "block": "b1"},
        {"name": "c", "precision": "int8", "block": "b1"},
        {"name": "d", "precision": "float", "block": "b1"},
        {"name": "e", "precision": "float", "block": ""},
    ]
    assert [kind_of(e, ["b0"]) for e in rows] == ["kept", "int8", "int8", "plain", "zone"]
    picture = strip_svg({"layers": rows, "float_blocks": ["b0"]})
    assert "INT8: b to c" in picture
    assert picture.count('y="0"') == 4
