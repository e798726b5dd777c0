"""Whether a board in probation takes back an engine that is too slow, and keeps one that is not.

    python benchmarks/probation.py [--json] [--trials 10] [--seconds 12] [--sizes 160 320]

Real engines in a real loop with its reverse shadow, at thirty frames a second, judged by the code
that a board runs and by the settings that it comes with; a release may take 1.5 times as long as
the one before it. The engine that is alike is the same file; the slower one is the same network at
a larger input. A busy board has one process more that wants a core: from the swap on, when a fast
engine looks slow, or until the swap, when a slow one does not. Beside each figure stands what the
pairs say that the board runs on the same frames, without the older engine's own time in service.

The engine is the demo's committed detector, which needs the builder's extra.
"""

from __future__ import annotations

import argparse
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec

#: Run by its path, only this folder is searched for modules.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.agent import interleaved
from benchmarks.common import Row, as_object, as_table
from benchmarks.shadow_replay import manifest
from benchmarks.swapping import Camera, frames_of, loader, shape_of
from kedge_agent.evidence.summary import Evidence, Proof
from kedge_agent.evidence.verdicts import Served, judge_probation
from kedge_agent.hotswap import Answer, HotEngine
from kedge_agent.patience import ProbationSettings
from kedge_agent.shadow import Shadow
from kedge_agent.telemetry import Telemetry
from kedge_shared.device_classes import Budgets
from kedge_shared.manifest import Manifest
from kedge_shared.policy import ModelPolicy
from kedge_shared.vision import Frame

_FPS, _SHARE, _RATIO = 30.0, 0.1, 1.5
#: Frames of the older engine in service before the swap.
_BEFORE = 90
_LOOK_SECONDS = 0.25
_NEVER = 1e9


@dataclass(frozen=True)
class Scene:
    """A board and what it is given.

    Attributes:
        name: In the table.
        slower: The newer engine is the slower one.
        busy: When another process wants a core: ``never``, ``before`` or ``after`` the swap.
    """

    name: str
    slower: bool
    busy: str = "never"


SCENES = (
    Scene("alike, quiet board: taken back", slower=False),
    Scene("alike, busy from the swap on: taken back", slower=False, busy="after"),
    Scene("too slow, quiet board: found", slower=True),
    Scene("too slow, busy from the swap on: found", slower=True, busy="after"),
    Scene("too slow, busy until the swap: found", slower=True, busy="before"),
)


@dataclass(frozen=True)
class Outcome:
    """Seconds after the swap at which each way took the engine back; ``_NEVER`` if it did not."""

    both: float
    pairs: float


class Board:
    """A loop, its telemetry and its shadow, as a runner wires them."""

    def __init__(self, old: Path) -> None:
        self.hot = HotEngine(loader(old)())
        self.telemetry = Telemetry()
        self.shadow: Shadow | None = None

    def infer(self, frame: Frame) -> Answer | None:
        """Answers a frame, counts it and offers it to the shadow."""
        answer = self.hot.infer(frame)
        if answer is not None:
            self.telemetry.frame(answer.found)
            if self.shadow is not None:
                self.shadow.offer(frame, answer)
        return answer

    def evidence(self, before_ms: float) -> Evidence:
        """Returns what the runner would tell its updater."""
        assert self.shadow is not None
        found = self.shadow.evidence(self.telemetry.recent_p95_ms())
        return msgspec.structs.replace(found, live_before_ms=before_ms)


def terms(size: int, classes: Sequence[str]) -> Manifest:
    """Returns a manifest that holds the newer engine to time alone."""
    found = manifest(tuple(classes), size)
    shadow = replace(found.shadow, must_hold="nothing")
    return replace(found, shadow=shadow, budgets=Budgets(latency_ratio=_RATIO))


@contextmanager
def burner() -> Iterator[None]:
    """Another process that wants a core all the time."""
    process = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        yield
    finally:
        process.kill()
        process.wait()


def trial(scene: Scene, old: Path, new: Path, seconds: float) -> Outcome:
    """Swaps once and watches the probation."""
    board, size_classes = Board(old), shape_of(new)
    with ExitStack() as stack:
        camera = stack.enter_context(Camera(board.infer, _FPS))
        with ExitStack() as early:
            if scene.busy == "before":
                early.enter_context(burner())
            camera.wait(_BEFORE)
            board.hot.load(loader(new))
            before_ms = board.telemetry.recent_ms()
        if scene.busy == "after":
            stack.enter_context(burner())
        board.hot.swap()
        board.hot.wait_answered(10)
        board.telemetry.forget_recent()
        shadow = Shadow(board.hot, "previous", terms(*size_classes), _SHARE)
        shadow.start()
        board.shadow = shadow
        found = watched(board, before_ms, terms(*size_classes), seconds)
    shadow.stop()
    board.hot.close()
    return found


def watched(board: Board, before_ms: float, newer: Manifest, seconds: float) -> Outcome:
    """Asks for a verdict again and again, by both criteria and by the pairs alone."""
    began, frames = time.monotonic(), board.telemetry.frames
    spoke = {"both": _NEVER, "pairs": _NEVER}
    while (passed := time.monotonic() - began) < seconds and _NEVER in spoke.values():
        time.sleep(_LOOK_SECONDS)
        served = Served(board.telemetry.frames - frames, passed)
        for name, before in (("both", before_ms), ("pairs", 0.0)):
            if spoke[name] == _NEVER and too_slow(board.evidence(before), newer, served):
                spoke[name] = passed
    return Outcome(**spoke)


def too_slow(evidence: Evidence, newer: Manifest, served: Served) -> bool:
    """Says whether the board would take the newer engine back for its frame times."""
    policy = ModelPolicy(schema=1, model=newer.model, version=1, accuracy_floor=0.0, golden=())
    settings = ProbationSettings()
    ruling = judge_probation(evidence, Proof(), newer, policy, settings, served)
    return ruling.verdict.code == "latency"


def rows_of(models: Sequence[Path], trials: int, seconds: float) -> Iterator[Row]:
    """Runs every scene in turn, again and again, so that all share the machine's moods."""
    old, slow = models
    outcomes: dict[Scene, list[Outcome]] = {each: [] for each in SCENES}
    for at in range(trials):
        for scene, found in outcomes.items():
            found.append(trial(scene, old, slow if scene.slower else old, seconds))
        print(f"probation: {at + 1} of {trials}", file=sys.stderr)
    for scene, found in outcomes.items():
        value, pairs = (
            sum(each < _NEVER for each in way)
            for way in ([each.both for each in found], [each.pairs for each in found])
        )
        target = trials if scene.slower else 0
        yield Row(name=scene.name, value=value, unit=f"of {trials}", holds=value == target,
                  target=target, against=pairs)  # fmt: skip
        if scene.slower and value:
            yield Row(name=f"{scene.name}, slowest", unit="s", holds=None,
                      value=max(each.both for each in found if each.both < _NEVER))  # fmt: skip


def main() -> int:
    """Measures and prints."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--trials", type=int, default=10, help="of each scene")
    parser.add_argument("--seconds", type=float, default=12.0, help="that a probation is watched")
    parser.add_argument("--sizes", type=int, nargs=2, default=[160, 320], help="input pixels")
    given = parser.parse_args()
    import cv2

    cv2.setNumThreads(1)
    with tempfile.TemporaryDirectory() as scratch:
        try:
            from demo.engines import export

            models = export(Path(scratch), given.sizes)
        except ImportError as error:
            print(f"probation: {error}; pip install 'kedge[builder]'", file=sys.stderr)
            return 2
        engines, picture = [loader(each)() for each in models], frames_of()[0]
        old, new = interleaved(
            lambda: engines[0].detect(picture), lambda: engines[1].detect(picture)
        )
        rows = [Row(name=f"the slower engine over the other; {_RATIO} may be", value=new / old,
                    unit="x")]  # fmt: skip
        rows += rows_of(models, given.trials, given.seconds)
    print(as_object(platform.platform(), rows) if given.json else as_table(rows, "by pairs alone"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
