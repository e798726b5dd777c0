"""``kedge rollout`` as a person types it, against a running server."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from kedge_server.operator.cli import rollout as app
from kedge_server.operator.rollout_file import read_rollout
from kedge_shared.errors import InputError, KedgeError
from kedge_shared.fleet import TagsChange
from tests.sim.world import TOKEN, World

FILE = """
model: shapes
release: "1.0"
selector: name=in=(cam-0,cam-1,cam-2)
stages:
  - {count: 1, approval: true, gate: {soak_seconds: 0}}
  - {percent: 100, gate: {soak_seconds: 0, sequential: {latency_ratio: null}}}
"""


@pytest.fixture
def call(running: World, tmp_path: Path) -> Any:
    """Runs a command; what it raises is what a person is shown."""
    (tmp_path / "token").write_text(TOKEN)
    (tmp_path / "rollout.yaml").write_text(FILE)
    running.publish("1.0", 10)
    for each in range(4):
        running.enrol(f"cam-{each}")
    options = ["--server", running.url, "--token-file", str(tmp_path / "token")]

    def run(*words: str, online: bool = True) -> str:
        result = CliRunner().invoke(
            app, [*words, *(options if online else [])], catch_exceptions=False
        )
        assert result.exit_code == 0, result.output
        return result.stdout

    return run


def test_from_a_file_over_a_dry_run_to_a_replay(running: World, call: Any, tmp_path: Path) -> None:
    file = ("-f", str(tmp_path / "rollout.yaml"))
    plan = json.loads(call("create", *file, "--dry-run", "--json"))
    assert [len(each["devices"]) for each in plan["stages"]] == [1, 2]
    assert plan["skipped"] == {"cam-3": "not selected by name=in=(cam-0,cam-1,cam-2)"}
    said = call("create", *file, "--dry-run")
    assert "not started" in said
    assert "Left out" in said
    assert running.operator.rollouts() == []

    made = json.loads(call("create", *file, "--json"))["rollout"]["id"]
    for each in running.devices:
        each.live()
    running.tick()
    assert "asking" in call("show", made)
    call("approve", made)
    for each in running.devices:
        each.live()
    running.tick()
    running.tick()
    assert "asking" in call("show", made), "three boards are too few"
    call("stop", made)
    replayed = json.loads(call("replay", made, "--json"))
    assert [(each["stage"], each["verdict"], each["same"]) for each in replayed] == [
        (0, "pass", True), (1, "undecided", True),
    ]  # fmt: skip
    assert "same" in call("replay", made)


def test_a_decision_that_comes_out_different_is_an_error(
    running: World, call: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from kedge_server.rollouts import evidence

    made = json.loads(call("create", "shapes", "1.0", "--stages", "100", "--soak-seconds", "0",
                           "--json"))["rollout"]["id"]  # fmt: skip
    for each in running.devices:
        each.live()
    running.tick()
    real = evidence.judge
    monkeypatch.setattr(evidence, "judge", lambda gate, facts, now: real(gate, facts, now - 1e9))
    call("show", made)
    with pytest.raises(KedgeError, match="decision 1 of .* comes out different"):
        call("replay", made)


def test_what_cannot_be_is_said(call: Any, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no model and release"):
        call("create")
    with pytest.raises(InputError, match="leave the arguments out"):
        call("create", "shapes", "1.0", "-f", str(tmp_path / "rollout.yaml"))
    with pytest.raises(KedgeError, match="selector: selector 'speed>3': at position 1"):
        call("create", "shapes", "1.0", "--selector", "speed>3")


def test_a_gate_is_tried_on_simulated_fleets(call: Any, tmp_path: Path) -> None:
    words = ("simulate", "--devices", "60", "--fleets", "10")
    rows = json.loads(call(*words, "--json", online=False))
    assert {each["rule"] for each in rows} >= {"Kedge", "Kayenta Mann-Whitney"}
    assert rows == json.loads(call(*words, "--json", online=False)), "the draw is seeded"
    with pytest.raises(InputError, match="stages by percent with a sequential gate"):
        call(*words, "-f", str(tmp_path / "rollout.yaml"), online=False)
    file = tmp_path / "percent.yaml"
    file.write_text("{model: a, release: b, stages: [{percent: 100, gate: {sequential: {}}}]}")
    assert "Power" in call(*words, "-f", str(file), online=False)


def test_a_file_says_all_of_it(call: Any, tmp_path: Path) -> None:
    file = ("-f", str(tmp_path / "rollout.yaml"))
    for words, said in (
        (("--stages", "5,100"), "--stages beside -f"), (("--recall",), "--recall beside -f"),
        (("--soak-seconds", "60"), "--soak-seconds beside -f"),
    ):  # fmt: skip
        with pytest.raises(InputError, match=said):
            call("create", *file, *words)


HEAD = "{model: shapes, release: '1.0', %s}"


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("stages: [{percent: 100, gate: {sok_seconds: 3}}]",
         r"no field stages\[0\]\.gate\.sok_seconds; did you mean soak_seconds\?"),
        ("stages: [{percent: 100}], soak_seconds: 3",
         r"no field soak_seconds; it belongs at stages\[\]\.gate\.soak_seconds$"),
        ("stages: [{percent: 100, download_slots: 3}]",
         r"no field stages\[0\]\.download_slots; it belongs at download_slots$"),
        ("stages: [{percent: 100}], nothing: 3", "no field nothing$"),
        ("stages: [{percent: 100, gate: {soak_seconds: .inf}}]",
         r"stages\[0\]\.gate\.soak_seconds: inf is no number to go by"),
        ("stages: [{percent: 100}], window: {begins: 22:00, ends: '04:00'}",
         r"\$\.window\.begins`; write it in quotes"),
        ("stages: [{percent: 100}], priority: ten", r"\$\.priority`$"),
        ("stages: [{percent: 100, gate: {soak_seconds: 7200}}], deadline_hours: 2",
         "deadline_hours: stages soak for 2 h in all, so that it is always over after 2"),
        ("stages: [{percent: 100, gate: {max_failure_share: 0.1, sequential: {}}}]",
         "max_failure_share: a sequential test does not ask for it"),
        ("stages: [{percent: 100, gate: {min_healthy: 3, sequential: {}}}]",
         "min_healthy: a sequential test does not ask for it"),
    ],
)  # fmt: skip
def test_what_cannot_be_meant_is_said_by_its_name(tmp_path: Path, body: str, said: str) -> None:
    file = tmp_path / "rollout.yaml"
    file.write_text(HEAD % body)
    with pytest.raises(InputError, match=said):
        read_rollout(file)


def test_numbers_without_end_are_refused_on_the_command_line(call: Any) -> None:
    for word in ("--soak-seconds", "--silence-seconds"):
        with pytest.raises(InputError, match="inf is no number to go by"):
            call("create", "shapes", "1.0", word, "inf", "--dry-run")


def test_a_selector_that_selects_nobody_is_most_likely_misspelt(
    running: World, call: Any, tmp_path: Path
) -> None:
    misspelt = ("create", "shapes", "1.0", "--selector", "tag.sitee==a")
    assert "nobody would get it" in call(*misspelt, "--dry-run")
    with pytest.raises(KedgeError, match="and none has a tag sitee"):
        call(*misspelt)
    file = tmp_path / "canary.yaml"
    file.write_text(HEAD % "stages: [{selector: tag.labb==yes}, {percent: 100}]")
    plan = json.loads(call("create", "-f", str(file), "--dry-run", "--json"))
    assert plan["stages"][0]["notes"] == ["selects no board: refused"]
    with pytest.raises(KedgeError, match=r"stages\[0\].selector: tag.labb==yes selects none"):
        call("create", "-f", str(file))
    assert running.operator.rollouts() == []


def test_a_board_that_is_tagged_into_an_open_rollout_joins_it(running: World, call: Any) -> None:
    running.operator.tag_devices(TagsChange(devices=("cam-0",), set={"site": "a"}))
    made = json.loads(call("create", "shapes", "1.0", "--stages", "100", "--selector",
                           "tag.site==a", "--json"))["rollout"]["id"]  # fmt: skip
    running.operator.tag_devices(TagsChange(devices=("cam-1", "cam-2"), set={"site": "a"}))
    running.operator.tag_devices(TagsChange(devices=("cam-2",), set={"site": "a", "x": "y"}))
    running.tick()
    reached = [each.device for each in running.operator.rollout_deployments(made)]
    assert sorted(reached) == ["cam-0", "cam-1", "cam-2"]
    assert running.operator.rollout(made).stages[0].devices == 3
