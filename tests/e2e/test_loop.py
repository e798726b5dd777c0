"""The whole loop with real processes: built, signed, rolled out, swapped, refused, taken back."""

from __future__ import annotations

import itertools
import json
import subprocess
from pathlib import Path

import pytest

from demo.processes import KEDGE
from kedge_shared.ids import sha256_hex
from kedge_shared.phases import Phase
from tests.e2e.conftest import RealFleet, wait_until

BOARDS = {"east": "x86-onnxruntime", "west": "x86-openvino"}


def runs_on(fleet: RealFleet, release: str) -> None:
    """Every loop serves ``release`` and goes on doing so."""
    for name in BOARDS:
        before = len(fleet.frames(name))
        wait_until(lambda name=name, n=before: len(fleet.frames(name)) > n + 12)
        assert fleet.frames(name)[-1].release == release
        status = fleet.status(name)
        assert (status.running, status.release) == (True, release)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_whole_loop(fleet: RealFleet, releases: dict[str, Path], video: Path) -> None:
    for name, device_class in BOARDS.items():
        fleet.start_board(name, device_class, video)
    fleet.publish(releases["1.0"])
    assert fleet.finished(fleet.roll_out("1.0")).state == "completed", fleet.log("east")
    runs_on(fleet, "1.0")

    fleet.publish(releases["1.1"])
    assert fleet.finished(fleet.roll_out("1.1", 20, 100)).state == "completed", fleet.log("east")
    runs_on(fleet, "1.1")

    # One byte of an artifact in the server's store is flipped: refused, and the loops run on.
    fleet.publish(releases["1.2"])
    for device_class in BOARDS.values():
        flip(fleet, releases["1.2"] / device_class)
    tampered = fleet.roll_out("1.2")
    assert fleet.finished(tampered).state == "halted"
    # The first refusal halts it: the other board may never hear of it.
    rows = [each for each in fleet.client.rollout_deployments(tampered)
            if each.phase is Phase.REFUSED]  # fmt: skip
    assert rows
    for row in rows:
        assert row.verdict.code == "trust"
        assert "altered" in row.verdict.reason
    runs_on(fleet, "1.1")

    # A model that faithfully reproduces its own bad outputs: signed, and still not taken.
    fleet.publish(releases["1.3"])
    wrong = fleet.roll_out("1.3", 20, 100)
    assert fleet.finished(wrong).state == "halted"
    (first, *_) = fleet.client.rollout_deployments(wrong)
    assert (first.phase, first.verdict.code) == (Phase.REFUSED, "accuracy")
    assert "label score" in first.verdict.reason
    runs_on(fleet, "1.1")

    for name in BOARDS:
        frames = fleet.frames(name)
        gaps = [b.seq - a.seq for a, b in itertools.pairwise(frames)]
        assert set(gaps) == {1}, f"{name} lost frames: {[each for each in gaps if each != 1]}"
        assert [key for key, _ in itertools.groupby(frames, lambda each: each.release)] == [
            "1.0", "1.1",
        ]  # fmt: skip

    shown = kedge("agent", "status", "--config", fleet.home / "boards" / "east" / "agent.yaml")
    assert shown.returncode == 0
    assert shown.stdout.startswith("east: running, serves 1.1")
    machine = kedge(
        "agent", "status", "--json", "--config", fleet.home / "boards" / "east" / "agent.yaml"
    )
    assert json.loads(machine.stdout)["release"] == "1.1"


def kedge(*words: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(KEDGE), *map(str, words)], capture_output=True, text=True, check=False
    )


def flip(fleet: RealFleet, folder: Path) -> None:
    engine = next(each for each in folder.iterdir() if each.suffix in {".onnx", ".bin"})
    digest = sha256_hex(engine.read_bytes())
    stored = fleet.home / "server" / "artifacts" / digest[:2] / digest
    body = bytearray(stored.read_bytes())
    body[len(body) // 2] ^= 1
    stored.write_bytes(body)
