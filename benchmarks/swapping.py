"""A loop through many swaps, in a process of its own: ``python -m benchmarks.swapping``.

A camera gives frames at half of what the slower engine can take; two engines are swapped under it
in one of several ways. Prints the figures as JSON; :mod:`benchmarks.agent` starts it.
"""

from __future__ import annotations

import argparse
import json
import sys
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

from kedge_agent import limits
from kedge_agent.detector import Detector
from kedge_agent.engine_file import open_engine
from kedge_agent.frames import Captured, LatestFrames
from kedge_agent.hotswap import HotEngine
from kedge_shared.vision import Frame

#: Frames between two swaps: what is steady is measured in the same seconds.
_BETWEEN = 6
#: Swaps before resident memory is looked at: by then every pool has its size.
_SETTLED = 10

Load = Callable[[], Detector]


def frames_of(size: int = 640) -> list[Frame]:
    """Returns frames that hold something, (size, size, 3) BGR."""
    from demo.shapes import scene

    rng = np.random.default_rng(1)
    return [scene(rng, size)[0] for _ in range(8)]


def loader(path: Path, threads: int = 1) -> Load:
    """Returns what loads an ONNX detector; size and classes stand in its graph."""
    size, classes = shape_of(path)
    warm = frames_of(size)[:3]
    return lambda: open_engine(path, classes=classes, size=size, frames=warm, threads=threads)


def shape_of(path: Path) -> tuple[int, list[str]]:
    """Returns an ONNX detector's input size and as many class names as it has."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    size, rows = session.get_inputs()[0].shape[2], session.get_outputs()[0].shape[1]
    return int(size), [f"c{each}" for each in range(int(rows) - 4)]


@dataclass
class Camera:
    """Gives frames at a steady rate and times what becomes of them.

    Attributes:
        quiet: Frame times while nothing is loaded, milliseconds.
        loading: The same while an engine is being loaded, by way.
        way: How one is being loaded; empty between.
    """

    infer: Callable[[Frame], object]
    fps: float
    slots: LatestFrames = field(default_factory=LatestFrames)
    quiet: list[float] = field(default_factory=list)
    loading: dict[str, list[float]] = field(default_factory=dict)
    answered: list[float] = field(default_factory=list)
    way: str = ""
    halt: threading.Event = field(default_factory=threading.Event)

    def __enter__(self) -> Camera:
        self._threads = [threading.Thread(target=each) for each in (self._give, self._answer)]
        for each in self._threads:
            each.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.halt.set()
        for each in self._threads:
            each.join()

    def _give(self) -> None:
        pictures, due = frames_of(), time.monotonic()
        for seq in range(10**9):
            due = max(due + 1 / self.fps, time.monotonic() - 1 / self.fps)
            if self.halt.wait(max(0.0, due - time.monotonic())):
                return
            self.slots.put(Captured(seq, pictures[seq % len(pictures)], due))

    def _answer(self) -> None:
        while not self.halt.is_set():
            frame = self.slots.take(0.1)
            if frame is None:
                continue
            way, started = self.way, time.perf_counter()
            self.infer(frame.image)
            took = (time.perf_counter() - started) * 1000
            (self.loading.setdefault(way, []) if way else self.quiet).append(took)
            self.answered.append(time.monotonic())

    def wait(self, count: int) -> None:
        """Waits for so many answers more."""
        wanted = len(self.answered) + count
        while len(self.answered) < wanted:
            time.sleep(0.002)


def hot(loads: list[Load], fps: float, swaps: int, *, trim: bool = True) -> dict[str, Any]:
    """Swaps with HotEngine; every fourth loader is not nice, for comparison."""
    engine = HotEngine(loads[0]())
    switches: list[float] = []
    resident: list[float] = []
    with ExitStack() as stack:
        if not trim:
            stack.enter_context(mock.patch.object(limits, "give_memory_back"))
        camera = stack.enter_context(Camera(engine.infer, fps))
        camera.wait(20)
        lost_before, lost_loading = camera.slots.dropped, 0
        for at in range(1, swaps + 1):
            at_load = camera.slots.dropped
            camera.way = "plain" if at % 4 == 0 else "nice"
            with ExitStack() as rude:
                if camera.way == "plain":
                    rude.enter_context(mock.patch.object(limits, "be_nice_thread"))
                engine.load(loads[at % 2])
            camera.way = ""
            engine.swap()
            engine.wait_answered(10)
            switches.append(engine.switch_us / 1000)
            lost_loading += camera.slots.dropped - at_load
            engine.drop("previous")
            camera.wait(_BETWEEN)
            if at % 2 == 0 and at >= min(_SETTLED, swaps // 2):
                resident.append(limits.resident_mb())
        lost = camera.slots.dropped - lost_before
    engine.close()
    return {
        "lost": lost, "lost_quiet": lost - lost_loading, "frames": len(camera.answered),
        "switch_ms": max(switches),
        "quiet": camera.quiet, "nice": camera.loading.get("nice", []),
        "plain": camera.loading.get("plain", []), "resident": resident,
        "gap_ms": float(np.diff(camera.answered).max() * 1000),
    }  # fmt: skip


def in_line(loads: list[Load], fps: float, swaps: int) -> dict[str, Any]:
    """Stops, loads and starts, as a loop does that knows one engine."""
    serving, wanted, at = [loads[0]()], threading.Event(), 0

    def infer(frame: Frame) -> object:
        nonlocal at
        if wanted.is_set():
            at += 1
            serving.pop().close()
            serving.append(loads[at % 2]())
            wanted.clear()
        return serving[0].detect(frame)

    with Camera(infer, fps) as camera:
        camera.wait(20)
        lost_before = camera.slots.dropped
        for _ in range(swaps):
            wanted.set()
            while wanted.is_set():
                time.sleep(0.002)
            camera.wait(_BETWEEN)
        lost = camera.slots.dropped - lost_before
    serving[0].close()
    return {"lost": lost, "frames": len(camera.answered),
            "gap_ms": float(np.diff(camera.answered).max() * 1000)}  # fmt: skip


def capacity(load: Load, seconds: float) -> float:
    """Returns frames a second that an engine answers, pre- and post-processing included."""
    detector, pictures = load(), frames_of()
    started, count = time.perf_counter(), 0
    while time.perf_counter() - started < seconds:
        detector.detect(pictures[count % len(pictures)])
        count += 1
    detector.close()
    return count / seconds


def main() -> int:
    """Measures one way and prints its figures."""
    parser = argparse.ArgumentParser()
    parser.add_argument("way", choices=["hot", "untrimmed", "in-line"])
    parser.add_argument("models", nargs=2, type=Path)
    parser.add_argument("--fps", type=float, required=True)
    parser.add_argument("--swaps", type=int, required=True)
    given = parser.parse_args()
    loads = [loader(each) for each in given.models]
    if given.way == "in-line":
        found = in_line(loads, given.fps, given.swaps)
    else:
        found = hot(loads, given.fps, given.swaps, trim=given.way == "hot")
    json.dump(found, sys.stdout)
    return 0


if __name__ == "__main__":
    sys.exit(main())
