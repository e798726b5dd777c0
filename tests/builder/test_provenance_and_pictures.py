"""The ML-BOM is valid and repeatable; pictures escape labels and hold what was measured."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from kedge_builder.data.datasets import Sample
from kedge_builder.report.bars import drops_svg, histogram_svg
from kedge_builder.report.bom import bom
from kedge_builder.report.front import front_svg
from kedge_builder.report.provenance import provenance
from kedge_builder.report.svg import ticks
from kedge_builder.search.pareto import Limits, pick
from kedge_builder.search.record import section
from kedge_builder.search.study import Explored
from kedge_shared import wire
from kedge_shared.ids import sha256_hex
from kedge_shared.manifest import Measured
from tests.builder.search_worker import BUDGETS, SPACE
from tests.builder.test_pareto import ALL
from tests.shared.samples import manifest

REPORT = {"drop": {"map50_95": {"estimate": 0.003, "low": -0.001, "high": 0.007}}}
IMAGES = [Sample(Path(f"{at % 2}.jpg"), Path("x.txt"), f"{at % 3:064d}") for at in range(4)]
MADE = replace(
    manifest(),
    measured=(Measured(what="map50", value=0.5, machine="a board"),),
    provenance=replace(manifest().provenance, tools={"onnx": "1.17", "torch": "2.13"}),
)


def test_the_bom_lists_every_hash_once_and_the_figures() -> None:
    body = json.loads(bom(MADE, REPORT, IMAGES))
    hashes = [each["hashes"][0]["content"] for each in body["components"]]
    files = {each.sha256 for each in MADE.files}
    made_from = {MADE.provenance.weights_sha256, MADE.provenance.data_sha256}
    assert {*files, *made_from, *(each.sha256 for each in IMAGES)} == set(hashes)
    model = body["metadata"]["component"]
    assert (model["type"], model["version"]) == ("machine-learning-model", MADE.release)
    metrics = model["modelCard"]["quantitativeAnalysis"]["performanceMetrics"]
    assert {"type": "map50", "value": "0.5", "slice": "a board"} in metrics
    assert metrics[-1]["confidenceInterval"] == {"lowerBound": "-0.001", "upperBound": "0.007"}
    tools = {e["name"]: e["version"] for e in body["metadata"]["tools"]["components"]}
    assert tools == MADE.provenance.tools


def test_the_same_build_gives_the_same_bom_and_another_one_another_number() -> None:
    one = bom(MADE, REPORT, IMAGES)
    assert bom(MADE, REPORT, IMAGES[::-1]) == one
    other = json.loads(bom(MADE, REPORT, IMAGES[:1]))
    assert other["serialNumber"] != json.loads(one)["serialNumber"]


def test_the_bom_follows_the_schema() -> None:
    pytest.importorskip("jsonschema", reason="install cyclonedx-python-lib[json-validation]")
    from cyclonedx.schema import SchemaVersion
    from cyclonedx.validation.json import JsonStrictValidator

    validator = JsonStrictValidator(SchemaVersion.V1_6)
    assert validator.validate_str(bom(MADE, REPORT, IMAGES).decode()) is None


def test_provenance_names_everything_that_was_read_and_is_repeatable() -> None:
    body = wire.encode_pretty(MADE)
    made = provenance(MADE, body, IMAGES)
    assert provenance(MADE, body, IMAGES[::-1]) == made
    said = json.loads(made)
    about = {each["name"]: each["digest"]["sha256"] for each in said["subject"]}
    assert about == {"manifest.json": sha256_hex(body),
                     **{each.name: each.sha256 for each in MADE.files}}  # fmt: skip
    definition = said["predicate"]["buildDefinition"]
    read = [each["digest"]["sha256"] for each in definition["resolvedDependencies"]]
    origin = MADE.provenance
    assert read[:2] == [origin.weights_sha256, origin.data_sha256]
    assert sorted(read[2:]) == sorted({each.sha256 for each in IMAGES})
    assert definition["externalParameters"]["recipe"] == origin.recipe
    assert said["predicate"]["runDetails"]["builder"]["version"] == origin.tools


def _search() -> dict[str, Any]:
    limits = Limits(BUDGETS, SPACE.baseline)
    choice = pick(ALL, "fastest", limits)
    return section(Explored("sqlite://", "kedge", ALL), choice, "fastest", limits)


def test_the_picture_holds_every_point_and_escapes_what_it_says() -> None:
    search = _search()
    search["trials"][0]["title"] = "<script>alert(1)</script>"
    search["reason"] = "a & b"
    picture = front_svg(search)
    assert "<script" not in picture
    tree = ElementTree.fromstring(picture)
    name = "{http://www.w3.org/2000/svg}"
    assert len(tree.findall(f".//*/{name}title")) == len(ALL)
    assert tree.findtext(f"{name}desc") == "a & b"
    texts = [each.text for each in tree.iter(f"{name}text")]
    assert "baseline" in texts
    assert "picked: pruning step 1, 640 px, int8+mixed-1" in texts
    assert "allowed drop, 2.00 points" in texts


def test_bars_put_the_worst_class_first_and_take_no_markup() -> None:
    tree = ElementTree.fromstring(drops_svg({"a": -0.01, "<b>": 0.02}, title="drops"))
    bars = tree.findall("{http://www.w3.org/2000/svg}rect")
    assert [each.get("class") for each in bars] == ["bad", "s0"]
    assert [each[0].text for each in bars] == ["<b>: +2.00 points", "a: -1.00 points"]
    with pytest.raises(ValueError, match="as long"):
        histogram_svg(["1", "2"], {"pool": [1]}, title="t", id="h")


def test_ticks_are_round_and_within() -> None:
    assert [text for _, text in ticks(0.377, 0.402, 6)] == [
        "0.380", "0.385", "0.390", "0.395", "0.400",
    ]  # fmt: skip
