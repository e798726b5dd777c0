"""Float for ncnn through pnnx; the wheels of neither bring ncnn's INT8 tools."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from pathlib import Path

from kedge_shared.errors import InputError

_TIMEOUT_SECONDS = 600


def write(onnx: Path, size: int, out: Path) -> None:
    """Writes ``out`` (.param) and the .bin beside it.

    Args:
        onnx: The float model.
        size: Input pixels.
        out: Where to.

    Raises:
        InputError: pnnx does not take the model.
    """
    import pnnx

    with tempfile.TemporaryDirectory(prefix="kedge-ncnn-") as scratch:
        folder = Path(scratch)
        shutil.copyfile(onnx, folder / "model.onnx")
        done = subprocess.run(
            [pnnx.EXEC_PATH, "model.onnx", f"inputshape=[1,3,{size},{size}]f32", "fp16=0"],
            cwd=folder, capture_output=True, text=True, timeout=_TIMEOUT_SECONDS, check=False,
        )  # fmt: skip
        made = folder / "model.ncnn.param", folder / "model.ncnn.bin"
        if done.returncode or not all(each.is_file() for each in made):
            said = " ".join((done.stdout + done.stderr).split())[-200:]
            raise InputError(f"pnnx does not take the model: {said}", "choose another runtime")
        # A layer that ncnn lacks keeps pnnx's name, and the board would find out.
        unknown = [each.split()[0] for each in made[0].read_text().splitlines()[2:]
                   if "." in each.split()[0] or "::" in each.split()[0]]  # fmt: skip
        if unknown:
            raise InputError(f"ncnn lacks the operator {unknown[0]}", "choose another runtime")
        shutil.copyfile(made[0], out)
        shutil.copyfile(made[1], out.with_suffix(".bin"))
