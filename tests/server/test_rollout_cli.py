"""``kedge rollout`` as a person types it, against a running server."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from kedge_server.operator.cli import rollout as app
from kedge_shared.errors import InputError, KedgeError
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
