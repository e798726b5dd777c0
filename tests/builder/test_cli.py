"""``kedge build`` as a process: one line, the right status, nothing half-written."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import FIXTURE

KEDGE = str(Path(sys.executable).with_name("kedge"))


def kedge(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [KEDGE, *map(str, arguments)], capture_output=True, text=True, timeout=120, check=False
    )


def build(
    weights: object, data: object, out: Path, *more: object
) -> subprocess.CompletedProcess[str]:
    return kedge("build", weights, "--data", data, "--out", out, *more)


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
    shapes: Path, tmp_path: Path, weights: object, more: tuple[object, ...], said: str
) -> None:
    result = build(weights, shapes, tmp_path / "out", *more)
    assert result.returncode == 2, result.stderr
    lines = [each for each in result.stderr.splitlines() if each.startswith("kedge:")]
    assert len(lines) == 1
    assert said in lines[0]
    assert "Traceback" not in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_unlabelled_data_and_missing_data(tmp_path: Path) -> None:
    result = build(FIXTURE, tmp_path / "none.yaml", tmp_path / "out", *CLASS)
    assert result.returncode == 2
    assert "none.yaml" in result.stderr


def test_an_unknown_class_lists_the_known_ones(shapes: Path, tmp_path: Path) -> None:
    result = build(FIXTURE, shapes, tmp_path / "out", "--device-class", "toaster")
    assert "x86-onnxruntime" in result.stderr
    assert "x86-openvino" in result.stderr


def test_a_file_where_the_folder_should_be(shapes: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.write_text("mine")
    result = build(FIXTURE, shapes, out, *CLASS)
    assert (result.returncode, out.read_text()) == (2, "mine")
    assert result.stderr.startswith(f"kedge: {out} is a file")
