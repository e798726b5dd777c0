"""What the agent's loop costs and what a swap costs it, each against the naive way.

    python benchmarks/agent.py [--json] [--models A.onnx B.onnx] [--swaps 100]

Without models the demo's committed detector is exported at 160 and 320 pixels; that needs the
builder's extra. Both are YOLO detectors of fixed size, float or INT8, for ONNX Runtime.
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
from pathlib import Path
from typing import Any

import numpy as np

#: Run by its path, only this folder is searched for modules.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks import runner_process
from benchmarks.common import Row, as_object, as_table
from benchmarks.swapping import capacity, frames_of, loader, shape_of

ROOT = Path(__file__).resolve().parents[1]
_STARTS = 3
#: Turns of the two that are compared, and timed calls in each.
_TURNS, _CALLS = 20, 4
_PAUSE_SECONDS = 0.03
#: The targets at 640 pixels and below differ: there the loop's own share is larger.
_LARGE = 640


def way(name: str, models: Sequence[Path], fps: float, swaps: int) -> dict[str, Any]:
    """Runs one way of swapping in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.swapping", name, *map(str, models),
         "--fps", f"{fps:.3f}", "--swaps", str(swaps)],
        cwd=ROOT, capture_output=True, text=True, check=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def swap_rows(models: Sequence[Path], swaps: int) -> list[Row]:
    """Returns what swaps cost a loop at half of the slower engine's capacity."""
    fps = min(capacity(loader(each), 2) for each in models) / 2
    hot = way("hot", models, fps, swaps)
    untrimmed = way("untrimmed", models, fps, max(20, swaps // 3))
    in_line = way("in-line", models, fps, max(4, swaps // 10))
    quiet = _p99(hot["quiet"])
    lost = in_line["lost"] * swaps / max(4, swaps // 10)
    return [
        row(f"frames lost over {swaps} swaps at {fps:.0f}/s", hot["lost"], "frames", 0, lost),
        row("of them while nothing was loaded", hot["lost_quiet"], "frames", None, None),
        row("longest gap between answers", hot["gap_ms"], "ms", None, in_line["gap_ms"]),
        row("p99 frame time while loading over steady", _p99(hot["nice"]) / quiet, "x", 1.15,
            _p99(hot["plain"]) / quiet),
        row("p99 frame time, steady", quiet, "ms", None, None),
        row("longest switch", hot["switch_ms"], "ms", 1.0, in_line["gap_ms"]),
        row("resident memory drift", _drift(hot["resident"]), "%", 5.0,
            _drift(untrimmed["resident"])),
    ]  # fmt: skip


def _p99(times: Sequence[float]) -> float:
    return float(np.quantile(times, 0.99)) if times else float("nan")


def _drift(resident: Sequence[float]) -> float:
    """Returns how much the last third lies above the first, per cent of it."""
    third = max(1, len(resident) // 3)
    first, last = statistics.median(resident[:third]), statistics.median(resident[-third:])
    return (last - first) / first * 100


def interleaved(one: Callable[[], object], other: Callable[[], object]) -> tuple[float, float]:
    """Returns median milliseconds of each, run in turn, some calls at a time.

    A runtime's threads spin for a while after a call and would take the cores from whoever comes
    next: each waits until they sleep, and warms its own up again.
    """
    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(_TURNS):
        for each, call in zip(times, (one, other), strict=True):
            time.sleep(_PAUSE_SECONDS)
            call()
            for _ in range(_CALLS):
                started = time.perf_counter()
                call()
                each.append((time.perf_counter() - started) * 1000)
    return statistics.median(times[0]), statistics.median(times[1])


def capacity_rows(model: Path, threads: int) -> list[Row]:
    """Returns the loop's frame rate against the bare runtime's and Ultralytics' on one file.

    All with the same threads: Ultralytics gives the runtime every core, so that is the default.
    Against Ultralytics stands how much quicker than it the bare runtime is.
    """
    import onnxruntime as ort

    size, _ = shape_of(model)
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    session = ort.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
    name, picture = session.get_inputs()[0].name, frames_of()[0]
    batch = np.zeros((1, 3, size, size), np.float32)
    detector = loader(model, threads)()
    ours, bare = interleaved(
        lambda: detector.detect(picture), lambda: session.run(None, {name: batch})
    )
    target = 1 / 1.15 if size >= _LARGE else None
    rows = [row(f"frame rate over bare session.run, {size} px", bare / ours, "x", target, 1.0,
                least=True)]  # fmt: skip
    peer = _peer(model, size, threads)
    if peer is not None:
        ours, theirs = interleaved(lambda: detector.detect(picture), lambda: peer(picture))
        bare, its = interleaved(lambda: session.run(None, {name: batch}), lambda: peer(picture))
        target = 1.3 if size < _LARGE else None
        # What it is against: a loop that costs nothing at all could have no more.
        rows.append(row(f"frame rate over YOLO(onnx).predict, {size} px", theirs / ours, "x",
                        target, its / bare, least=True))  # fmt: skip
    detector.close()
    return rows


def _peer(model: Path, size: int, threads: int) -> Callable[[Any], object] | None:
    try:
        from demo.train import quiet_ultralytics

        ultralytics = quiet_ultralytics()
    except ImportError:
        return None
    import torch

    torch.set_num_threads(threads)
    yolo = ultralytics.YOLO(str(model), task="detect")
    return lambda picture: yolo.predict(picture, imgsz=size, device="cpu", verbose=False)


def process_rows(model: Path, home: Path) -> list[Row]:
    """Returns what the runner's process takes to start, and memory."""
    starts = [runner_process.start(model, home) for _ in range(_STARTS)]
    bare = runner_process.bare_mb(model)
    resident = statistics.median(each[1] for each in starts)
    return [
        row("start to first answer", statistics.median(each[0] for each in starts), "s", 2.0, None),
        row("runner's memory over the bare runtime's", resident - bare, "MiB", 60.0, bare),
    ]


def row(name: str, value: float, unit: str, target: float | None, against: float | None, *,
        least: bool = False) -> Row:  # fmt: skip
    """Returns one row; ``against`` is the naive way, in the same run."""
    holds = None if target is None else value >= target if least else value <= target
    return Row(name=name, value=value, unit=unit, target=target, holds=holds, against=against)


def main() -> int:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--models", nargs=2, type=Path)
    parser.add_argument("--swaps", type=int, default=100)
    parser.add_argument(
        "--threads",
        type=int,
        default=os.cpu_count() or 1,
        help="of the frame rates; swaps are measured with one, the agent's default",
    )
    given = parser.parse_args()
    import cv2

    cv2.setNumThreads(1)
    with tempfile.TemporaryDirectory() as scratch:
        models = given.models
        if models is None:
            try:
                from demo.engines import export

                models = export(Path(scratch), (160, 320))
            except ImportError as error:
                print(f"agent: {error}; pip install 'kedge[builder]', or give --models",
                      file=sys.stderr)  # fmt: skip
                return 2
        rows = swap_rows(models, given.swaps)
        rows += [each for model in models for each in capacity_rows(model, given.threads)]
        rows += process_rows(models[0], Path(scratch))
    text = as_object(platform.platform(), rows) if given.json else as_table(rows, "naive way")
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
