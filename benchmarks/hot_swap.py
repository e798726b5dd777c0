"""What a swap costs the loop: HotEngine against its two simpler ways, in turn, in one run.

    python benchmarks/hot_swap.py [--json] [--builds DIR DIR] [--fps 25] [--swaps 8]

Takes two builds of one class that ``kedge build`` wrote; by default the demo's (``make demo``).
"""

from __future__ import annotations

import argparse
import itertools
import platform
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from unittest import mock

import numpy as np

#: Run by its path, only this folder is searched for modules.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.common import Row, as_object, as_table
from kedge_agent import limits
from kedge_agent.blobs import BlobStore
from kedge_agent.detector import Detector, load_detector
from kedge_agent.frames import Captured, LatestFrames
from kedge_agent.hotswap import HotEngine
from kedge_agent.local_protocol import Slot
from kedge_agent.runtimes.registry import RUNTIMES
from kedge_shared.ids import sha256_hex
from kedge_shared.manifest import read_manifest
from kedge_shared.policy import read_policy
from kedge_shared.vision import Frame

DEMO = Path(__file__).parents[1] / "demo" / "out" / "builds"
_SETTLE_SECONDS = 1.0
Load = Callable[[], Detector]


@dataclass
class Loop:
    """A camera at a steady pace and a loop over its latest frame.

    Attributes:
        answered: Monotonic seconds of each answer.
        took: Frame times, milliseconds.
    """

    infer: Callable[[Frame], object]
    fps: float
    answered: list[float] = field(default_factory=list)
    took: list[float] = field(default_factory=list)
    slot: LatestFrames = field(default_factory=LatestFrames)
    halt: threading.Event = field(default_factory=threading.Event)

    def run(self, during: Callable[[], None]) -> None:
        """Runs the loop while ``during`` does its work."""
        threads = [threading.Thread(target=each) for each in (self._camera, self._answer)]
        for each in threads:
            each.start()
        time.sleep(_SETTLE_SECONDS)
        during()
        time.sleep(_SETTLE_SECONDS)
        self.halt.set()
        for each in threads:
            each.join()

    def _camera(self) -> None:
        image = np.random.default_rng(1).integers(0, 255, (160, 160, 3), dtype=np.uint8)
        for seq in itertools.count():
            if self.halt.wait(1 / self.fps):
                return
            self.slot.put(Captured(seq, image, time.monotonic()))

    def _answer(self) -> None:
        while not self.halt.is_set():
            frame = self.slot.take(0.1)
            if frame is not None:
                started = time.perf_counter()
                self.infer(frame.image)
                self.took.append((time.perf_counter() - started) * 1000)
                self.answered.append(time.monotonic())

    def figures(self) -> dict[str, float]:
        """Returns frames lost, longest gap and frame times."""
        gaps = np.diff(self.answered) * 1000
        return {
            "lost": float(self.slot.dropped),
            "gap": float(gaps.max()),
            "p50": float(np.quantile(self.took, 0.5)),
            "p99": float(np.quantile(self.took, 0.99)),
        }


def hot(first: Load, second: Load, fps: float, *, nice: bool) -> dict[str, float]:
    """Swaps with HotEngine, its loader at nice 19 or not."""
    engine = HotEngine(first())

    def change() -> None:
        quiet = nullcontext() if nice else mock.patch.object(limits, "be_nice_thread")
        with quiet:
            engine.load(second)
        engine.swap()
        engine.wait_answered(5)

    loop = Loop(engine.infer, fps)
    loop.run(change)
    figures = loop.figures() | {"switch": engine.switch_us}
    engine.close()
    return figures


def in_line(first: Load, second: Load, fps: float) -> dict[str, float]:
    """Stops, loads and starts, as a loop does that knows one engine."""
    serving, wanted = [first()], threading.Event()

    def infer(frame: Frame) -> object:
        if wanted.is_set():
            wanted.clear()
            serving.pop().close()
            serving.append(second())
        return serving[0].detect(frame)

    loop = Loop(infer, fps)
    loop.run(wanted.set)
    serving[0].close()
    return loop.figures()


def growth(first: Load, second: Load, swaps: int) -> float:
    """Returns how much resident memory the second half of many swaps added, MiB."""
    engine = HotEngine(first())
    middle = 0.0
    for at, load in zip(range(2 * swaps), itertools.cycle((second, first)), strict=False):
        engine.load(load)
        engine.swap()
        engine.drop("previous")
        time.sleep(0.05)
        if at == swaps:
            middle = limits.resident_mb()
    found = limits.resident_mb() - middle
    engine.close()
    return found


def put_build(store: BlobStore, folder: Path) -> Slot:
    """Copies a build into a blob store, as an update would leave it."""
    body = (folder / "manifest.json").read_bytes()
    manifest = read_manifest(body)
    policy_at = DEMO / "1.0" / "policy" / "policy.json"
    beside = folder.parent / "policy" / "policy.json"
    policy_at = beside if beside.is_file() else policy_at
    policy = policy_at.read_bytes()
    blobs = [body, policy, *((folder / each.name).read_bytes() for each in manifest.files)]
    golden = policy_at.parent / "golden"
    blobs += [(golden / each.name).read_bytes() for each in read_policy(policy).golden]
    for each in blobs:
        store.path(sha256_hex(each)).write_bytes(each)
    return Slot(release=manifest.release, manifest=sha256_hex(body), policy=sha256_hex(policy),
                engine=manifest.engine_hash)  # fmt: skip


def measure(builds: list[Path], fps: float, rounds: int, swaps: int) -> list[Row]:
    """Returns the rows."""
    with tempfile.TemporaryDirectory() as scratch:
        store = BlobStore(Path(scratch))
        slots = [put_build(store, each) for each in builds]
        first, second = (
            (lambda slot=slot: load_detector(slot, store, RUNTIMES, 1)) for slot in slots
        )
        found: dict[str, list[dict[str, float]]] = {"hot": [], "plain": [], "in_line": []}
        for _ in range(rounds):
            found["hot"].append(hot(first, second, fps, nice=True))
            found["plain"].append(hot(first, second, fps, nice=False))
            found["in_line"].append(in_line(first, second, fps))
        grown = growth(first, second, swaps)

    def worst(way: str, name: str) -> float:
        return max(each[name] for each in found[way])

    frame = 1000 / fps
    return [
        row("frames lost", worst("hot", "lost"), "frames", 0, worst("in_line", "lost")),
        row("longest gap", worst("hot", "gap"), "ms", 2 * frame, worst("in_line", "gap")),
        row("frame time p99 while loading", worst("hot", "p99"), "ms", 2 * worst("hot", "p50"),
            worst("plain", "p99")),
        row("pointer switch", worst("hot", "switch"), "us", 100, None),
        row(f"memory grown over {swaps} swaps", grown, "MiB", 5, None),
    ]  # fmt: skip


def row(name: str, value: float, unit: str, target: float, against: float | None) -> Row:
    """Returns one row; ``against`` is the simpler way, in the same run."""
    return Row(name=name, value=value, unit=unit, target=target, holds=value <= target,
               against=against)  # fmt: skip


def main() -> int:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--builds", nargs=2, type=Path)
    parser.add_argument("--fps", type=float, default=25)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--swaps", type=int, default=12)
    given = parser.parse_args()
    builds = given.builds or [DEMO / each / "x86-onnxruntime" for each in ("1.0", "1.1")]
    if missing := [each for each in builds if not (each / "manifest.json").is_file()]:
        print(f"hot_swap: {missing[0]} holds no build; run make demo first", file=sys.stderr)
        return 2
    rows = measure(builds, given.fps, given.rounds, given.swaps)
    if given.json:
        print(as_object(platform.platform(), rows))
        return 0
    print(as_table(rows, "the simpler way"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
