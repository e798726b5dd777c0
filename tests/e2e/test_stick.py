"""A board without network: installed from a stick and taken back by hand, by the command line."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from demo.processes import run
from tests.e2e.conftest import RealFleet, wait_until

NAME = "far"


def kedge(fleet: RealFleet, *arguments: str) -> tuple[int, str]:
    """Runs a command of the agent on the board; returns its status and what it printed."""
    config = fleet.home / "boards" / NAME / "agent.yaml"
    code = "from kedge_shared.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code, "agent", *arguments, "--config", str(config)],
        capture_output=True, text=True, timeout=400, check=False,
    )  # fmt: skip
    return done.returncode, done.stdout + done.stderr


def stop(fleet: RealFleet, name: str) -> None:
    os.kill(fleet.processes.pid(name), signal.SIGTERM)
    wait_until(lambda: not fleet.processes.alive(name))


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_stick_and_back(fleet: RealFleet, releases: dict[str, Path], video: Path) -> None:
    fleet.start_board(NAME, "x86-onnxruntime", video)
    fleet.publish(releases["1.0"])
    assert fleet.finished(fleet.roll_out("1.0")).state == "completed"
    fleet.publish(releases["1.1"])
    stick = fleet.home / "stick.kedge"
    run(
        "release", "bundle", "shapes", "1.1", "--out", str(stick), "--server", fleet.url,
        "--token-file", str(fleet.home / "server" / "operator.token"),
    )  # fmt: skip
    stop(fleet, "server")

    status, said = kedge(fleet, "install", str(stick))
    assert (status, "no assignment for far" in said) == (2, True), said
    config = fleet.home / "boards" / NAME / "agent.yaml"
    config.write_text(config.read_text() + "\nbundles: {without_assignment: true}\n")
    stop(fleet, NAME)
    fleet.start_agent(NAME)
    wait_until(lambda: fleet.status(NAME).running)

    status, said = kedge(fleet, "install", str(stick), "--json")
    assert status == 0, said
    assert json.loads(said)["phase"] == "confirmed"
    assert fleet.status(NAME).release == "1.1"
    status, said = kedge(fleet, "rollback", "--reason", "blinks")
    assert (status, "rolled_back" in said) == (0, True), said
    assert fleet.status(NAME).release == "1.0"
    status, said = kedge(fleet, "doctor", "--json")
    assert status == 1, "the server is away, and the doctor says so"
    bad = [each["what"] for each in json.loads(said) if each["state"] == "bad"]
    assert bad == ["server"], said
