"""Libraries that report home by themselves are kept from it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.sim.onnx_engine import tiny_onnx

PROGRAM = """
import sys
import {package}
import onnxruntime
onnxruntime.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
import openvino
openvino.convert_model(sys.argv[1])
"""


def test_no_vendor_keeps_an_identifier_of_the_device(tmp_path: Path) -> None:
    """Who counts devices leaves a file in the home folder; without one nothing is told either."""
    (tmp_path / "engine.onnx").write_bytes(tiny_onnx())
    for package in ("kedge_agent", "kedge_builder", "kedge_server"):
        home = tmp_path / package
        home.mkdir()
        spared = {"ORT_DISABLE_TELEMETRY", "NNCF_CI", "XDG_CACHE_HOME", "CI"}
        clean = {key: value for key, value in os.environ.items() if key not in spared}
        subprocess.run(
            [sys.executable, "-c", PROGRAM.format(package=package), str(tmp_path / "engine.onnx")],
            env={**clean, "HOME": str(home)}, check=True, capture_output=True, timeout=120,
        )  # fmt: skip
        assert list(home.rglob("*")) == [], package
