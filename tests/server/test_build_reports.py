"""The builder's report: cut, listed by signed targets, kept, shown as text and nothing else."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
from typer.testing import CliRunner

from kedge_builder.publishing.excerpt import excerpt
from kedge_server.cli import app as server_app
from kedge_server.operation.collect import collect
from kedge_server.operator import show
from kedge_server.releases.comparing import Side, compare
from kedge_shared import wire
from kedge_shared.attachments import LIMITS_BYTES, REPORT
from kedge_shared.build_report import (
    LAYERS_MOST,
    POINTS_MOST,
    SENTENCE_MOST,
    BuildReport,
    read_build_report,
)
from kedge_shared.cli import build_app
from kedge_shared.errors import InputError, TrustError
from kedge_shared.ids import sha256_hex
from kedge_shared.manifest import read_manifest
from tests.server.offering import offer
from tests.server.people import staffed
from tests.shared import samples
from tests.sim.world import TOKEN, World, write_build

CLASS = "x86-onnxruntime"
HOSTILE = "<script>alert('x')</script>"


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with staffed(tmp_path_factory.mktemp("fleet")) as found:
        found.publish("1.1", 11, report={"search": samples.searched(30)})
        found.publish("1.2", 12, report=lost(0.005, HOSTILE))
        yield found


def lost(estimate: float, text: str) -> dict[str, Any]:
    """Returns changes to a report whose every text is another."""
    usual = samples.report_json(samples.manifest())
    precision = usual["precision"]
    layers = [
        each | {"name": f"{text}{at}", "reason": text, "precision": "int8"}
        for at, each in enumerate(precision["layers"])
    ]
    return {
        "reasons": [text], "notes": [text],
        "drop": {"map50_95": {"estimate": estimate, "low": None, "high": None},
                 "per_class": {text: 0.1}},
        "precision": precision | {"layers": layers, "form": text, "plan": text},
    }  # fmt: skip


def published(world: World, release: str) -> BuildReport:
    found = world.operator.build_report(world.operator.release("shapes", release).builds[0])
    assert found is not None
    return found


def test_it_travels_listed_by_the_signed_targets(fleet: World) -> None:
    build = fleet.operator.release("shapes", "1.1").builds[0]
    listed = fleet.publisher("fresh").standing().targets.signed.targets
    assert listed[build.manifest_path].custom["report"]["sha256"] == build.report
    found = published(fleet, "1.1")
    assert (found.loss.estimate, found.loss.per_class["square"]) == (0.012, 0.021)
    assert [each.precision for each in found.layers] == ["int8", "float", "int8", "float"]
    assert found.search is not None
    assert (found.search.measured, found.search.failed) == (29, 1)


def test_the_page_of_a_release_shows_layers_losses_and_what_was_searched(
    ada: httpx.Client,
) -> None:
    page = ada.get("/models/shapes/releases/1.1").text
    assert "1.20 points" in page
    assert "(0.40 to 1.90, 95 %)" in page
    assert '<td>square</td><td class="number">2.10</td>' in page
    assert "2 int8, 2 float" in page
    assert "<code>model.1</code>" in page
    assert "0.40 points" in page, "what leaving the block float saves"
    assert 'id="search-x86-onnxruntime-title"' in page
    assert "fastest that keeps every budget" in page
    assert "minmax" in page


def test_layers_are_found_by_text_and_precision(ada: httpx.Client) -> None:
    def names(**asked: str) -> set[str]:
        page = ada.get("/models/shapes/releases/1.1/layers", params={"class": CLASS, **asked}).text
        return {
            each for each in ("/model.0/", "/model.1/", "/model.22/") if f"<code>{each}" in page
        }

    assert names() == {"/model.0/", "/model.1/", "/model.22/"}
    assert names(precision="float") == {"/model.1/", "/model.22/"}
    assert names(q="BOXES") == {"/model.22/"}
    assert names(q="nothing") == set()
    for path, status in (("1.0", 404), ("9", 404)):
        asked = ada.get(f"/models/shapes/releases/{path}/layers", params={"class": CLASS})
        assert asked.status_code == status
    assert ada.get("/models/shapes/releases/1.1/layers?class=none").status_code == 404


@pytest.mark.parametrize("path", ["", "/layers?class=x86-onnxruntime"])
def test_what_a_builder_wrote_is_text(ada: httpx.Client, path: str) -> None:
    page = ada.get(f"/models/shapes/releases/1.2{path}").text
    assert HOSTILE not in page
    assert "&lt;script&gt;" in page
    build = ada.get("/api/v1/releases/shapes/1.2").json()["builds"][0]
    raw = ada.get(f"/api/v1/artifacts/{build['report']}")
    assert raw.headers["content-type"] == "application/octet-stream"
    assert raw.headers["x-content-type-options"] == "nosniff"


def test_a_release_without_one_says_so(ada: httpx.Client) -> None:
    page = ada.get("/models/shapes/releases/1.0").text
    assert "published without its builder" in page
    assert "every setting" not in page


def test_two_releases_are_told_apart_by_precision_and_loss(ada: httpx.Client) -> None:
    page = ada.get("/models/shapes/compare", params={"one": "1.1", "other": "1.2"}).text
    assert "Loss of mAP 50–95 against float" in page
    assert "precision › model.1" in page
    bare = ada.get("/models/shapes/compare", params={"one": "1.0", "other": "1.2"}).text
    assert "precision ›" not in bare, "of what was not published nothing is known"


def test_command_line_and_console_compare_by_the_same_rule(
    fleet: World, ada: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KEDGE_TOKEN", TOKEN)
    monkeypatch.setattr(show._console, "_width", 200)
    asked = ["release", "compare", "shapes", "1.1", "1.2", "--server", fleet.url]
    (pair,) = json.loads(CliRunner().invoke(build_app(), [*asked, "--json"]).output)
    page = ada.get("/models/shapes/compare", params={"one": "1.1", "other": "1.2"}).text
    changes = {each["what"]: each["change"] for each in (*pair["figures"], *pair["settings"])}
    assert changes["loss_map50_95"] == "better"
    assert changes["precision.model.1"] == "changed"
    assert page.count("▲ better") == list(changes.values()).count("better")
    assert page.count("● changed") == list(changes.values()).count("changed")
    assert f"{pair['same']} settings are the same" in page
    shown = CliRunner().invoke(build_app(), asked).output
    assert "precision.model.1" in shown


def test_the_command_shows_it(fleet: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KEDGE_TOKEN", TOKEN)
    monkeypatch.setattr(show._console, "_width", 200)
    asked = ["release", "show", "shapes", "1.1", "--server", fleet.url]
    found = json.loads(CliRunner().invoke(build_app(), [*asked, "--json"]).output)
    assert found["builds"][0]["device_class"] == CLASS
    assert len(found["reports"][CLASS]["layers"]) == 4
    shown = CliRunner().invoke(build_app(), asked).output
    assert "lost 1.20 points" in shown
    assert "square 2.10" in shown
    assert "layers 2 int8, 2 float" in shown
    old = CliRunner().invoke(build_app(), [*asked[:3], "1.0", *asked[4:]]).output
    assert "published without its builder's report" in old


def test_publishing_the_same_build_again_adds_it(running: World) -> None:
    folder = running.publish("1.0", 10)
    assert not running.operator.release("shapes", "1.0").builds[0].report
    manifest = read_manifest((folder / CLASS / "manifest.json").read_bytes())
    (folder / CLASS / "report.json").write_bytes(wire.encode(samples.report_json(manifest)))
    running.publish_folder(folder)
    first = running.operator.release("shapes", "1.0").builds[0]
    assert published(running, "1.0").images == 200
    (folder / CLASS / "report.json").unlink()
    running.publish_folder(folder)
    assert running.operator.release("shapes", "1.0").builds[0] == first, "it stays, as signed once"


def test_backup_check_and_collection_keep_it(running: World, tmp_path: Path) -> None:
    running.publish("1.0", 10, report={})
    digest = running.operator.release("shapes", "1.0").builds[0].report
    data, trust = running.home / "server", running.home / "trust"
    where = ["--data", str(data), "--trust", str(trust)]
    taken = collect(data, 1.0, time.time() + 3600, dry_run=True)
    assert taken.removed == {}
    CliRunner().invoke(server_app, ["backup", str(tmp_path / "kept"), *where])
    assert digest in {each.name for each in (tmp_path / "kept").rglob("*") if each.is_file()}
    (stored,) = (data / "artifacts").rglob(digest)
    stored.unlink()
    found = CliRunner().invoke(server_app, ["check", *where, "--json"]).output
    assert f"report of models/shapes/1.0/{CLASS}/manifest.json" in found


HARM: dict[str, Callable[[dict[str, Any]], object]] = {
    "script as a number": lambda body: body["before"].update(map50=HOSTILE),
    "a share over one": lambda body: body["built"].update(map50_95=7),
    "layers that are none": lambda body: body.update(layers={"a": 1}),
    "too many layers": lambda body: body.update(layers=body["layers"] * (LAYERS_MOST + 1)),
    "a text without end": lambda body: body.update(why="x" * (SENTENCE_MOST + 1)),
    "another schema": lambda body: body.update(schema=2),
    "of another build": lambda body: body.update(manifest="b" * 64),
}


@pytest.mark.parametrize("harm", [*HARM, "too large", "not uploaded", "no JSON"])
def test_the_server_takes_no_targets_whose_report_is_hostile(running: World, harm: str) -> None:
    running.publish("1.0", 10)
    digest = running.operator.release("shapes", "1.0").builds[0].manifest_sha256
    body = msgspec.to_builtins(msgspec.structs.replace(samples.build_report(), manifest=digest))
    HARM.get(harm, lambda _: None)(body)
    data = wire.encode(body)
    if harm == "too large":
        data += b" " * LIMITS_BYTES[REPORT]
    elif harm == "no JSON":
        data = b"<html>"
    if harm != "not uploaded":
        path = running.home / "hostile"
        path.write_bytes(data)
        running.operator.upload(path, sha256_hex(data), lambda _: None)
    answer = offer(running, CLASS, {"report": {"sha256": sha256_hex(data), "length": len(data)}})
    assert answer.status_code == 400, answer.text
    assert "report" in answer.json()["error"]
    assert not running.operator.release("shapes", "1.0").builds[0].report
    assert wire.decode(wire.encode(samples.build_report()), BuildReport, "sample")


def test_a_long_report_is_cut_and_says_so(tmp_path: Path) -> None:
    layer = {"name": "n" * 500, "operator": "Conv", "precision": "int8", "reason": "r" * 900,
             "block": "b"}  # fmt: skip
    usual = samples.report_json(samples.manifest())
    long = {
        "precision": usual["precision"] | {"layers": [layer] * (2 * LAYERS_MOST)},
        "search": samples.searched(2000), "reasons": ["x" * 5000] * 500,
    }  # fmt: skip
    folder = write_build(tmp_path / "b", "1.0", 10, report=long) / CLASS
    body = (folder / "manifest.json").read_bytes()
    data = excerpt(folder, read_manifest(body), sha256_hex(body))
    assert data is not None
    assert len(data) <= LIMITS_BYTES[REPORT]
    found = read_build_report(data, sha256_hex(body))
    assert (found.layers_in_all, len(found.reasons[0])) == (2 * LAYERS_MOST, SENTENCE_MOST)
    assert 0 < len(found.layers) < LAYERS_MOST
    assert found.search is not None
    assert (len(found.search.points), found.search.measured) == (POINTS_MOST, 1999)
    assert [each.title for each in found.search.points if each.picked] == ["pruned 1"]
    with pytest.raises(TrustError, match="another build"):
        read_build_report(data, "c" * 64)


def test_a_report_of_another_build_is_not_published(tmp_path: Path) -> None:
    folder = write_build(tmp_path / "b", "1.0", 10, report={"release": "0.9"}) / CLASS
    body = (folder / "manifest.json").read_bytes()
    with pytest.raises(InputError, match="of another build: shapes 0.9"):
        excerpt(folder, read_manifest(body), sha256_hex(body))


def test_figures_are_compared_where_that_says_something() -> None:
    report = samples.build_report()
    worse = msgspec.structs.replace(
        report, loss=msgspec.structs.replace(report.loss, estimate=0.02)
    )
    manifest = samples.manifest()
    (pair,) = compare({"x": Side(manifest, report)}, {"x": Side(manifest, worse)})
    found = {each.what: (each.change, each.ratio) for each in pair.figures}
    assert found == {"loss_map50_95": ("worse", 1.0), "size_mb": ("same", 0.0)}
    assert pair.settings == ()
    (old,) = compare({"x": Side(manifest)}, {"x": Side(manifest, worse)})
    assert next((each.what, each.note) for each in old.figures) == (
        "loss_map50_95", "measured in one only"
    )  # fmt: skip
