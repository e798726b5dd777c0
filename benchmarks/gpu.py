"""What swaps and frames cost on an NVIDIA GPU, and what INT8 brings there.

    python benchmarks/gpu.py [--json] [--models FLOAT.onnx QUANTIZED.onnx] [--swaps 20]

With TensorRT both are built into plans on this very GPU, as an agent does it, and swapped; without,
ONNX Runtime's CUDA provider carries out the float model and the swap. Without models the demo's
detector is exported, which is too small to tell anything about INT8: for that give YOLOv8s, float
and as ``kedge build`` quantizes it for TensorRT. Without a GPU: one line, and exit status 77.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

#: Run by its path, only this folder is searched for modules.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.common import Row, as_object, as_table
from benchmarks.swapping import frames_of, hot, shape_of
from kedge_agent.building.maker import order
from kedge_agent.detector import Detector
from kedge_agent.engine_file import open_engine
from kedge_agent.gpu import board_python
from kedge_agent.gpu.engine_host import EngineFault
from kedge_agent.runtimes.registry import RUNTIMES
from kedge_agent.runtimes.tensorrt import devices, memory_of, open_cuda
from kedge_shared.errors import KedgeError
from kedge_shared.plans import OnDevice

#: As automake and pytest's plug-ins have it: not run, and no failure.
SKIPPED = 77
_FPS = 30.0
_FAILED_LOADS = 100
_CALLS, _WARM = 200, 20
_MIB = 2**20
_BUILD_SECONDS = 1800


@dataclass(frozen=True)
class Engines:
    """What is measured.

    Attributes:
        runtime: Carries both out.
        files: Float (FP16 on TensorRT) and quantized; twice the same where only one is there.
        size: Input, pixels.
        classes: Their names.
    """

    runtime: str
    files: tuple[Path, Path]
    size: int
    classes: Sequence[str]

    def load(self, at: int) -> Detector:
        """Loads one of the two."""
        return open_engine(
            self.files[at], classes=self.classes, size=self.size, runtime=self.runtime,
            frames=frames_of(self.size)[:3],
        )  # fmt: skip


def gpu() -> str:
    """Says why there is no GPU to measure on; empty if there is one."""
    try:
        return "" if devices(open_cuda()) else "CUDA finds none"
    except EngineFault as error:
        return str(error)


def engines(models: Sequence[Path], scratch: Path) -> Engines | None:
    """Returns what this machine can carry out; ``None`` where no runtime gets onto the GPU."""
    size, classes = shape_of(models[0])
    for name in ("tensorrt", "tensorrt-rtx"):
        if RUNTIMES[name].probe() is None:
            continue
        try:
            plan = build(name, models[0], scratch, int8=False)
            other = plan if models[1] == models[0] else build(name, models[1], scratch, int8=True)
        except RuntimeError as error:
            print(f"gpu: {name} is left out: {error}", file=sys.stderr)
            continue
        return Engines(name, (plan, other), size, classes)
    if RUNTIMES["onnxruntime-cuda"].probe() is not None:
        return Engines("onnxruntime-cuda", (models[0], models[0]), size, classes)
    return None


def build(runtime: str, onnx: Path, scratch: Path, *, int8: bool) -> Path:
    """Builds a plan as an agent does: by the same program, behind the same walls."""
    command, plan = board_python.maker(runtime), scratch / f"{onnx.stem}.plan"
    if command is None:
        raise RuntimeError(f"{runtime} builds nothing")
    with onnx.open("rb") as source, plan.open("wb") as out:
        job = order(source.fileno(), out.fileno(), OnDevice(int8=int8))
        done = subprocess.run(
            command, input=job, capture_output=True, check=False,
            pass_fds=(source.fileno(), out.fileno()), timeout=_BUILD_SECONDS,
        )  # fmt: skip
    told = json.loads(done.stdout or b"{}")
    if not told.get("ok"):
        why = told.get("error") or done.stderr.decode(errors="replace")[-300:]
        raise RuntimeError(f"{onnx.name}: {why}")
    return plan


def swap_rows(found: Engines, swaps: int) -> list[Row]:
    """Returns what swaps cost a loop at 30 frames a second."""
    told = hot([lambda: found.load(0), lambda: found.load(1)], _FPS, swaps)
    ratio = _p99([*told["nice"], *told["plain"]]) / _p99(told["quiet"])
    return [
        row(f"frames lost over {swaps} swaps at {_FPS:.0f}/s", told["lost"], "frames", 0),
        row("p99 frame time while loading over steady", ratio, "x", 1.5),
        row("longest switch", told["switch_ms"], "ms", None),
    ]


def leak_row(found: Engines) -> Row:
    """Returns the GPU memory that a hundred failed loads keep."""
    broken = found.files[0].read_bytes()[:-4096]
    name = found.files[0].name
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / name
        path.write_bytes(broken)
        bad = Engines(found.runtime, (path, path), found.size, found.classes)
        keeper = found.load(0)  # the context itself is no leak
        with suppress(KedgeError, MemoryError):
            bad.load(0)
        cuda = open_cuda()
        before, failed = memory_of(cuda)[0], 0
        for _ in range(_FAILED_LOADS):
            try:
                bad.load(0).close()
            except (KedgeError, MemoryError):
                failed += 1
        kept = (before - memory_of(cuda)[0]) / _MIB
        keeper.close()
    return row(f"GPU memory kept after {failed} failed loads", kept, "MiB", 0)


def frame_rows(found: Engines) -> list[Row]:
    """Returns a whole frame over the bare engine, and INT8 over FP16."""
    picture = frames_of(found.size)[0]
    batch = np.zeros((1, 3, found.size, found.size), np.float32)
    bare, whole = [], 0.0
    for at in (0, 1):
        detector = found.load(at)
        engine = detector._engine
        bare.append(median_ms(lambda engine=engine: engine.infer(batch)))  # type: ignore[misc]
        if at == 0:
            whole = median_ms(lambda detector=detector: detector.detect(picture))  # type: ignore[misc]
        detector.close()
    rows = [row("whole frame over the bare engine", whole / bare[0], "x", 1.3),
            row("bare engine, float" if "cuda" in found.runtime else "bare engine, FP16",
                bare[0], "ms", None)]  # fmt: skip
    if found.files[0] == found.files[1]:
        return [*rows, Row(name="INT8 over FP16: not measured, no quantized plan", value=None,
                           unit="x", target=1.25)]  # fmt: skip
    return [*rows, row("INT8 over FP16, frame rate", bare[0] / bare[1], "x", 1.25, least=True)]


def median_ms(call: Callable[[], object]) -> float:
    """Returns the median time of a call, milliseconds."""
    for _ in range(_WARM):
        call()
    times = []
    for _ in range(_CALLS):
        started = time.perf_counter()
        call()
        times.append((time.perf_counter() - started) * 1000)
    return statistics.median(times)


def row(name: str, value: float, unit: str, target: float | None, *, least: bool = False) -> Row:
    """Returns one row."""
    holds = None if target is None else value >= target if least else value <= target
    return Row(name=name, value=value, unit=unit, target=target, holds=holds)


def _p99(times: Sequence[float]) -> float:
    return float(np.quantile(times, 0.99)) if times else float("nan")


def skipped(why: str, *, as_json: bool) -> int:
    """Says that nothing was measured."""
    told: dict[str, Any] = {"machine": platform.platform(), "rows": [], "skipped": why}
    print(json.dumps(told) if as_json else f"gpu: nothing was measured: {why}")
    return SKIPPED


def main() -> int:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--models", nargs=2, type=Path)
    parser.add_argument("--swaps", type=int, default=20)
    given = parser.parse_args()
    why = gpu()
    if why:
        return skipped(f"no GPU ({why})", as_json=given.json)
    with tempfile.TemporaryDirectory() as folder:
        models = given.models
        if models is None:
            from demo.engines import export

            model = export(Path(folder), (320,))[0]
            models = [model, model]
        found = engines(models, Path(folder))
        if found is None:
            return skipped(
                "there is a GPU, and neither TensorRT nor onnxruntime-gpu", as_json=given.json
            )
        rows = [*swap_rows(found, given.swaps), leak_row(found), *frame_rows(found)]
    ran = f"{platform.platform()}, {found.runtime} {RUNTIMES[found.runtime].probe()}"
    print(as_object(ran, rows) if given.json else f"{ran}\n{as_table(rows, '')}")
    return 0


if __name__ == "__main__":
    os.environ.setdefault("PYTHONPATH", str(Path(__file__).resolve().parents[1]))
    sys.exit(main())
