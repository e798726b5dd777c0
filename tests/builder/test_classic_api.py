"""What is asked of classic TensorRT is in its real bindings."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from kedge_builder.compilers import tensorrt
from tests.builder import tensorrt_api

#: Where scripts/setup.sh puts the bindings of classic TensorRT, or another folder of such wheels.
WHEELS = Path(os.environ.get("KEDGE_TENSORRT_WHEELS", Path(sys.prefix) / "tensorrt-bindings"))
#: What speaks to TensorRT on a board; there it runs on Pythons that have no agent.
_ON_BOARD = Path(__file__).parents[2] / "agent/kedge_agent/gpu"
_NOTHING = """
void *createInferBuilder_INTERNAL(void *l, int v) { return 0; }
void *createInferRefitter_INTERNAL(void *e, void *l, int v) { return 0; }
void *createInferRuntime_INTERNAL(void *l, int v) { return 0; }
void *createNvOnnxParserRefitter_INTERNAL(void *r, void *l, int v) { return 0; }
void *createNvOnnxParser_INTERNAL(void *n, void *l, int v) { return 0; }
void *getBuilderPluginRegistry(int c) { return 0; }
int getNvOnnxParserVersion(void) { return 0; }
void *getPluginRegistry(void) { return 0; }
int initLibNvInferPlugins(void *l, const char *n) { return 0; }
"""


@pytest.mark.skipif(
    not any(WHEELS.glob("*.whl")), reason="scripts/setup.sh found no bindings of TensorRT"
)
@pytest.mark.skipif(shutil.which("cc") is None, reason="there is no C compiler")
def test_the_classic_api_has_what_is_asked_of_it(tmp_path: Path) -> None:
    wheels = sorted(WHEELS.glob("tensorrt_cu*_bindings-*.whl"))
    assert wheels
    (tmp_path / "nothing.c").write_text(_NOTHING)
    for wheel in wheels:
        major = wheel.name.split("-")[1].split(".")[0]
        folder = tmp_path / wheel.name
        folder.mkdir()
        with zipfile.ZipFile(wheel) as opened:
            inside = next(each for each in opened.namelist() if each.endswith("tensorrt.so"))
            (folder / "tensorrt.so").write_bytes(opened.read(inside))
        for library in ("nvinfer", "nvinfer_plugin", "nvonnxparser"):
            name = f"lib{library}.so.{major}"
            subprocess.run(["cc", "-shared", "-fPIC", "-o", folder / name, tmp_path / "nothing.c",
                            f"-Wl,-soname,{name}"], check=True)  # fmt: skip
        looked = subprocess.run(
            [sys.executable, tensorrt_api.__file__, folder / "tensorrt.so", major,
             tensorrt.__file__, _ON_BOARD / "engine_host.py", _ON_BOARD / "plan_maker.py"],
            env={**os.environ, "LD_LIBRARY_PATH": str(folder)},
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert looked.stdout.split() == ["looked"], (wheel.name, looked.stdout, looked.stderr)
