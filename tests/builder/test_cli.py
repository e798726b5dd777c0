"""``kedge build`` on bad input: one line, the right status, nothing half-written."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from kedge_shared import cli
from tests.conftest import FIXTURE

KEDGE = str(Path(sys.executable).with_name("kedge"))


@dataclass(frozen=True)
class Ended:
    """What a command left behind: its status and what it said on standard error."""

    status: object
    said: str


Build = Callable[..., Ended]


@pytest.fixture
def build(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Build:
    """The command in this process: importing torch anew for each word takes seconds."""

    def run(weights: object, data: object, out: Path, *more: object) -> Ended:
        arguments = ("build", weights, "--data", data, "--out", out, *more)
        monkeypatch.setattr(sys, "argv", ["kedge", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        return Ended(ended.value.code, capfd.readouterr().err)

    return run


CLASS = ("--device-class", "x86-onnxruntime")


@pytest.mark.parametrize(
    ("weights", "more", "said"),
    [
        ("none.pt", CLASS, "weights none.pt cannot be read"),
        (Path(__file__), CLASS, "no readable checkpoint"),
        (FIXTURE, ("--device-class", "toaster"), "toaster"),
        (FIXTURE, (*CLASS, "--input-size", 161), "161 is no multiple of 32"),
        (FIXTURE, (*CLASS, "--input-size", -32), "input size -32"),
        (FIXTURE, (*CLASS, "--input-size", 100_000), "input size 100000"),
        (FIXTURE, (*CLASS, "--images", -3), "-3 images"),
        (FIXTURE, (*CLASS, "--release-counter", -3), "release counter -3"),
        (FIXTURE, (*CLASS, *CLASS), "x86-onnxruntime is given twice"),
        (FIXTURE, (*CLASS, "--override", "speed"), "override"),
        (FIXTURE, (*CLASS, "--override", "beauty=why not"), "beauty"),
        (FIXTURE, (*CLASS, "--policy", "none.json"), "none.json"),
        (FIXTURE, (*CLASS, "--release", "../1"), "release"),
        (FIXTURE, (*CLASS, "--if-it-loses", "junk"), "--if-it-loses 'junk' is not known"),
        (FIXTURE, (*CLASS, "--pick", "junk"), "--pick 'junk' is not known"),
        (FIXTURE, (*CLASS, "--tune", "--trials", 3), "3 trials are too few"),
        (FIXTURE, (*CLASS, "--tune", "--prune-to", 2), "2 of the MACs cannot be kept"),
        (FIXTURE, (*CLASS, "--bench-server", "http://127.0.0.1:1"), "--bench-key go together"),
        (FIXTURE, (*CLASS, "--calibration-images", 3), "3 calibration images are not between"),
    ],
)
def test_bad_input(
    build: Build, shapes: Path, tmp_path: Path, weights: object, more: tuple[object, ...], said: str
) -> None:
    ended = build(weights, shapes, tmp_path / "out", *more)
    assert ended.status == 2, ended.said
    lines = [each for each in ended.said.splitlines() if each.startswith("kedge:")]
    assert len(lines) == 1
    assert said in lines[0]
    assert list(tmp_path.iterdir()) == []


def test_missing_data(build: Build, tmp_path: Path) -> None:
    ended = build(FIXTURE, tmp_path / "none.yaml", tmp_path / "out", *CLASS)
    assert ended.status == 2
    assert "none.yaml" in ended.said


def test_an_unknown_class_lists_the_known_ones(build: Build, shapes: Path, tmp_path: Path) -> None:
    ended = build(FIXTURE, shapes, tmp_path / "out", "--device-class", "toaster")
    assert "x86-onnxruntime" in ended.said
    assert "x86-openvino" in ended.said


def test_as_a_process_where_a_file_lies_in_the_place_of_the_folder(
    shapes: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    out.write_text("mine")
    command = (KEDGE, "build", FIXTURE, "--data", shapes, "--out", out, *CLASS)
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, out.read_text()) == (2, "mine")
    assert done.stderr.startswith(f"kedge: {out} is a file")
    assert "Traceback" not in done.stderr
