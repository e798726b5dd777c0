"""What shadow and probation can tell, and how rarely they are wrong.

    python benchmarks/shadow.py [--json] [--runs 4000]
    python benchmarks/shadow.py --video FILE ... --weights YOLO.pt [--other YOLO.pt]

Simulated first, with the null hypothesis stated: two engines of equal recall that disagree on 5 %
of the looks, as often one way as the other; whether an object is missed is decided by a hidden
state that changes slowly (correlation .99 between frames); objects come and go independently. Four
objects on a frame, each for twenty looks: 300 evidence frames hold 60. ".99 a camera frame" is a
shadow that samples every tenth frame of such a camera, as its budget lets it; ".99 a look" is the
same correlation between its looks, so that an object which is missed is mostly missed for good.

Beside it the two simpler ways, on the same draws: the confidence sequence over means of ten frames
that the agent had before (empirical Bernstein, with a margin of half the stated disagreement), and
a paired z-test on frames at 1 %, looked at every ten frames.

With ``--video`` and ``--weights`` the same code judges real engines: a YOLOv8 against itself with
noise on its weights, and against ``--other`` if given.
"""

from __future__ import annotations

import argparse
import math
import platform
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.common import Row, as_object, as_table
from kedge_agent.evidence.loss import LossTest
from kedge_shared.manifest import Shadow

Floats = npt.NDArray[np.float64]
LANES, LOOKS, BLOCK = 4, 20, 10
EVIDENCE, LONG = 300, 10_000
HARM, ERROR = 0.01, 0.05
NORMAL = NormalDist()
CAMERA, LOOK = 0.99**10, 0.99
NEVER = 10**9


@dataclass(frozen=True)
class Scene:
    """What is simulated.

    Attributes:
        kind: How recall is lost: ``none``; ``alike``, by the same slow state as the null's
            misses; ``whole``: these objects are never seen; ``flicker``: each on some looks.
        loss: Share of recall that is lost.
        both: Share of looks on which equal engines disagree, both ways together.
        rho: Correlation of the hidden state between two looks.
        gain: Share of objects that the newer sees and the older never did.
    """

    kind: str = "none"
    loss: float = 0.0
    both: float = 0.05
    rho: float = CAMERA
    gain: float = 0.0


@dataclass
class Looks:
    """One frame of many boards: (runs, lanes) each."""

    missed: npt.NDArray[np.bool_]
    gained: npt.NDArray[np.bool_]


def film(scene: Scene, runs: int, frames: int, seed: int) -> Iterator[Looks]:
    """Yields frame by frame what the two engines say of the object in each lane."""
    rng = np.random.default_rng(seed)
    low = NORMAL.inv_cdf(scene.both / 2)
    extra = scene.loss if scene.kind == "alike" else 0.0
    high = NORMAL.inv_cdf(1 - scene.both / 2 - extra)
    fresh = math.sqrt(1 - scene.rho**2)
    state = fate = np.zeros((runs, LANES))
    for frame in range(frames):
        state = scene.rho * state + fresh * rng.standard_normal((runs, LANES))
        if frame % LOOKS == 0:
            state = rng.standard_normal((runs, LANES))
            fate = rng.random((runs, LANES))
        missed, gained = state > high, state < low
        if scene.kind == "whole":
            missed = missed | (fate < scene.loss)
        elif scene.kind == "flicker":
            missed = missed | (rng.random((runs, LANES)) < scene.loss)
        gained = gained | (fate > 1 - scene.gain)
        yield Looks(missed & ~(fate > 1 - scene.gain), gained & ~missed)


class Tracks:
    """Kedge's way: objects, betting."""

    def __init__(self, runs: int) -> None:
        self._test = LossTest(Shadow(), (runs,))
        self._missed = np.zeros((runs, LANES))
        self._gained = np.zeros((runs, LANES))
        self.harmed = np.full(runs, NEVER)
        self.confirmed = np.full(runs, NEVER)

    def see(self, looks: Looks, frame: int) -> None:
        """Takes one frame."""
        self._missed += looks.missed
        self._gained += looks.gained
        if (frame + 1) % LOOKS == 0:
            for missed, gained in zip(self._missed.T, self._gained.T, strict=True):
                self._judge(missed, gained, frame + 1)
            self._missed[:] = self._gained[:] = 0

    def _judge(self, missed: Floats, gained: Floats, frames: int) -> None:
        with np.errstate(invalid="ignore"):
            self._test.add(missed / (LOOKS - gained), gained / (LOOKS - missed))
        found = self._test.findings
        self.harmed[found.harm(HARM) & (self.harmed == NEVER)] = frames
        self.confirmed[found.health(ERROR) & (self.confirmed == NEVER)] = frames


class Blocks:
    """The way before: a confidence sequence over means of ten frames, margin .95."""

    def __init__(self, runs: int) -> None:
        self._missed, self._seen = np.zeros(runs), np.zeros(runs)
        self._weights = self._weighted = self._spread = np.zeros(runs)
        self._total, self._squares, self._count = np.full(runs, 0.5), np.full(runs, 0.25), 0
        self.harmed = np.full(runs, NEVER)

    def see(self, looks: Looks, frame: int) -> None:
        """Takes one frame."""
        self._missed += looks.missed.sum(axis=1)
        self._seen += LANES - looks.gained.sum(axis=1)
        if (frame + 1) % BLOCK == 0:
            self._close(1 - self._missed / np.maximum(self._seen, 1), frame + 1)
            self._missed, self._seen = np.zeros_like(self._missed), np.zeros_like(self._seen)

    def _close(self, value: Floats, frames: int) -> None:
        """Waudby-Smith and Ramdas (2024), theorem 2, c = 1/2."""
        self._count += 1
        log_term, count = math.log(1 / HARM), self._count
        mean, variance = self._total / count, self._squares / count
        rate = np.minimum(np.sqrt(2 * log_term / (variance * count * math.log(1 + count))), 0.5)
        self._weights = self._weights + rate
        self._weighted = self._weighted + rate * value
        self._spread = self._spread + (value - mean) ** 2 * (-np.log1p(-rate) - rate)
        high = (self._weighted + log_term + self._spread) / self._weights
        self._total = self._total + value
        self._squares = self._squares + (value - self._total / (count + 1)) ** 2
        self.harmed[(high < 1 - Shadow().disagreement) & (self.harmed == NEVER)] = frames


class Peeking:
    """A paired z-test on frames at 1 %, as if each look were the only one."""

    def __init__(self, runs: int) -> None:
        self._sum, self._squares = np.zeros(runs), np.zeros(runs)
        self.harmed = np.full(runs, NEVER)

    def see(self, looks: Looks, frame: int) -> None:
        """Takes one frame."""
        net = looks.missed.sum(axis=1) - looks.gained.sum(axis=1)
        self._sum += net
        self._squares += net.astype(float) ** 2
        count = frame + 1
        if count % BLOCK or count < 3 * BLOCK:
            return
        variance = np.maximum(self._squares / count - (self._sum / count) ** 2, 1e-9)
        z = self._sum / np.sqrt(variance * count)
        self.harmed[(z > NORMAL.inv_cdf(1 - HARM)) & (self.harmed == NEVER)] = count


@dataclass(frozen=True)
class Outcome:
    """Frames until each way spoke, (runs,) each; NEVER if it did not."""

    harmed: npt.NDArray[np.int64]
    confirmed: npt.NDArray[np.int64]
    blocks: npt.NDArray[np.int64]
    peeking: npt.NDArray[np.int64]


def play(scene: Scene, runs: int, frames: int, seed: int) -> Outcome:
    """Shows a scene to all three ways."""
    ways = (Tracks(runs), Blocks(runs), Peeking(runs))
    for frame, looks in enumerate(film(scene, runs, frames, seed)):
        for each in ways:
            each.see(looks, frame)
    return Outcome(ways[0].harmed, ways[0].confirmed, ways[1].harmed, ways[2].harmed)


def share(where: npt.NDArray[np.bool_]) -> tuple[float, tuple[float, float]]:
    """Returns a share and its 95 % interval (Wilson)."""
    count, mean, z = len(where), float(where.mean()), NORMAL.inv_cdf(0.975)
    centre = (mean + z * z / (2 * count)) / (1 + z * z / count)
    half = z / (1 + z * z / count) * math.sqrt(mean * (1 - mean) / count + z * z / (4 * count**2))
    return mean, (max(0.0, centre - half), min(1.0, centre + half))


def at_most(name: str, where: npt.NDArray[np.bool_], limit: float | None, against: float) -> Row:
    """A row whose share must not be above ``limit``."""
    value, interval = share(where)
    # An interval that holds the limit decides only for the side that the value is on.
    holds = None if limit is None or value > limit >= interval[0] else value <= limit
    return Row(name=name, value=value, unit="share", target=limit, holds=holds, against=against,
               interval=interval)  # fmt: skip


def at_least(name: str, where: npt.NDArray[np.bool_], limit: float, against: float) -> Row:
    """A row whose share must not be below ``limit``."""
    value, interval = share(where)
    holds = None if value < limit <= interval[1] else value >= limit
    return Row(name=name, value=value, unit="share", target=limit, holds=holds,
               against=against, interval=interval)  # fmt: skip


#: A tenth of recall is lost …
KINDS = {
    "alike": "10 % lost",
    "flicker": "10 % of every object lost",
    "whole": "10 % of objects lost whole",
}
RHOS = {CAMERA: ".99/frame", LOOK: ".99/look"}


def false_alarms(runs: int) -> Iterator[Row]:
    """Equal engines, 10,000 frames, a look after each object."""
    for rho, said in RHOS.items():
        found = play(Scene(rho=rho), runs, LONG, seed=1)
        name = f"equal, {said}: rolled back in {LONG} frames"
        yield at_most(name, found.harmed < NEVER, HARM, float(np.mean(found.peeking < NEVER)))
        blocks = found.blocks < NEVER
        yield at_most(f"{name}, by blocks", blocks, None, float(np.mean(found.peeking < NEVER)))
    for both in (0.1, 0.2, 0.4):
        found = play(Scene(both=both), runs, LONG // 2, seed=2)
        name = f"equal, {both:.0%} disagreement: rolled back in {LONG // 2}"
        yield at_most(name, found.harmed < NEVER, 0.1, float(np.mean(found.peeking < NEVER)))
    better = Scene(kind="whole", loss=0.05, gain=0.2)
    found = play(better, runs, LONG // 2, seed=3)
    name = f"loses 5 %, gains 20 %: rolled back in {LONG // 2}"
    yield at_most(name, found.harmed < NEVER, 0.1, float(np.mean(found.blocks < NEVER)))


def power(runs: int) -> Iterator[Row]:
    """A loss of 10 %, within 300 frames that hold 60 objects, and how long it takes."""
    for rho, said in RHOS.items():
        for kind, what in KINDS.items():
            found = play(Scene(kind, 0.1, rho=rho), runs, 3 * EVIDENCE, seed=4)
            seen = found.harmed <= EVIDENCE
            blocks = float(np.mean(found.blocks <= EVIDENCE))
            yield at_least(f"{what}, {said}: seen in {EVIDENCE} frames", seen, 0.95, blocks)
            late, blocks = (
                min(float(np.quantile(each, 0.95)), 3 * EVIDENCE)
                for each in (found.harmed, found.blocks)
            )
            yield Row(name=f"{what}, {said}: frames until 95 % see it", value=late,
                      unit="frames", against=blocks)  # fmt: skip
            wrong = found.confirmed < found.harmed
            yield at_most(f"{what}, {said}: confirmed first", wrong, ERROR, 0.0)


def decisions(runs: int) -> Iterator[Row]:
    """How long an equal engine and a dead one take."""
    for rho, said in RHOS.items():
        found = play(Scene(rho=rho), runs, 2 * EVIDENCE, seed=5)
        median = float(np.median(found.confirmed))
        yield Row(name=f"equal, {said}: frames to confirm, median", value=median,
                  unit="frames")  # fmt: skip
        open_yet = np.minimum(found.confirmed, found.harmed) > EVIDENCE
        yield at_most(f"equal, {said}: undecided after {EVIDENCE} frames", open_yet, None, 0)
    found = play(Scene("whole", 1.0), runs, EVIDENCE, seed=6)
    yield Row(name="everything lost: frames to roll back, median",
              value=float(np.median(found.harmed)), unit="frames",
              against=float(np.median(found.blocks)))  # fmt: skip


def main() -> int:
    """Measures and prints."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--runs", type=int, default=4000, help="simulated boards a row; 0: none")
    parser.add_argument("--video", type=Path, nargs="+", help="files to replay")
    parser.add_argument("--weights", type=Path, help="YOLOv8 checkpoint, the older engine")
    parser.add_argument("--other", type=Path, help="another one, the newer")
    parser.add_argument("--size", type=int, default=416, help="input pixels")
    parser.add_argument("--stride", type=int, default=3, help="video frames a look")
    parser.add_argument("--noise", type=float, nargs="*", default=[0.02, 0.1, 0.15, 0.2])
    given = parser.parse_args()
    if bool(given.video) != bool(given.weights):
        parser.error("a replay takes both --video and --weights")
    rows: list[Row] = []
    if given.runs:
        rows += [*power(given.runs), *false_alarms(given.runs), *decisions(given.runs)]
    if given.video:
        from benchmarks.shadow_replay import replay

        rows += replay(given.video, given.weights, given.other, given.size, given.stride,
                       given.noise)  # fmt: skip
    if given.json:
        print(as_object(platform.platform(), rows))
    else:
        print(as_table(rows, "by blocks; where nothing may be seen, by peeking"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
