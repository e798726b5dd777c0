"""The shadow's thread beside a live loop, with engines that see what a film's number says."""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable, Iterator

import numpy as np
import pytest

from kedge_agent.detector import Detections
from kedge_agent.errors import EngineError
from kedge_agent.evidence.summary import Evidence
from kedge_agent.hotswap import HotEngine
from kedge_agent.local_protocol import Slot, SlotName
from kedge_agent.shadow import Shadow
from tests.shared import samples
from tests.waiting import PATIENCE

#: A car crosses the picture in so many frames; the next one follows.
_CROSSING = 20


class Watching:
    """An engine that sees the cars it is told to; a frame's first pixels are its number."""

    def __init__(self, name: str, sees: Callable[[int], bool], *, fails: bool = False) -> None:
        self.slot = Slot(release=name, manifest="a" * 64, policy="b" * 64, engine="c" * 64)
        self._sees, self._fails = sees, fails
        self.looks = 0

    def detect(self, frame: np.ndarray[tuple[int, ...], np.dtype[np.uint8]]) -> Detections:
        self.looks += 1
        if self._fails:
            raise EngineError("no")
        number = int(frame.reshape(-1)[:4].copy().view(np.uint32)[0])
        car, at = divmod(number, _CROSSING)
        x = 15.0 * at
        rows = [[x, 0, x + 20, 20, 0.9, 0]] if self._sees(car) else []
        boxes = np.array(rows, dtype=np.float32).reshape(-1, 6)
        return Detections(boxes, ("circle", "square"), 1.0, finite=True)

    def close(self) -> None:
        """Nothing to free."""


def frame(number: int) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    picture = np.zeros((2, 2, 3), dtype=np.uint8)
    picture.reshape(-1)[:4] = np.array([number], dtype=np.uint32).view(np.uint8)
    return picture


@pytest.fixture
def hot() -> Iterator[HotEngine]:
    engines = HotEngine()
    yield engines
    engines.close()


def shown(
    hot: HotEngine, run: SlotName, enough: Callable[[Evidence], bool], share: float = 1.0
) -> Evidence:
    """Lets a loop run until there is enough evidence."""
    shadow = Shadow(hot, run, samples.manifest(), share)
    shadow.start()
    until, number = time.monotonic() + PATIENCE, 0
    try:
        while not enough(shadow.evidence(0)) and time.monotonic() < until:
            answer = hot.infer(frame(number))
            assert answer is not None
            shadow.offer(frame(number), answer)
            number += 1
            time.sleep(0.002)
    finally:
        shadow.stop()
    return shadow.evidence(0)


def load(hot: HotEngine, old: Watching, new: Watching) -> None:
    for each in (old, new):
        hot.load(lambda each=each: each)  # type: ignore[misc]
        if each is old:
            hot.swap()


def test_a_candidate_that_sees_half_is_found_out(hot: HotEngine) -> None:
    load(hot, Watching("1.0", lambda _: True), Watching("1.1", lambda car: car % 2 == 0))
    found = shown(hot, "candidate", lambda e: e.proof.missing >= math.log(100) and e.tracks >= 8)
    assert found.proof.missing >= math.log(100)
    assert found.old_only > 0
    assert found.new_only == 0


def test_in_reverse_shadow_the_newer_is_the_one_that_serves(hot: HotEngine) -> None:
    load(hot, Watching("1.0", lambda _: True), Watching("1.1", lambda car: car % 2 == 0))
    hot.swap()
    found = shown(hot, "previous", lambda e: e.proof.missing >= math.log(100) and e.tracks >= 8)
    assert found.proof.missing >= math.log(100)
    assert found.old_only > 0
    assert found.new_only == 0


def test_a_candidate_that_sees_more_loses_nothing(hot: HotEngine) -> None:
    load(hot, Watching("1.0", lambda car: car % 2 == 0), Watching("1.1", lambda _: True))
    found = shown(hot, "candidate", lambda e: e.tracks >= 20)
    assert found.tracks >= 20
    assert (found.old_only, found.proof.missing) == (0, 0)
    assert found.proof.safe > 0


@pytest.mark.parametrize(("run", "errors"), [("candidate", True), ("previous", False)])
def test_errors_are_the_newer_engines_alone(hot: HotEngine, run: SlotName, errors: bool) -> None:
    """The older engine that fails beside it is no fault of the newer."""
    broken, good = Watching("x", bool, fails=True), Watching("y", bool)
    load(hot, *((good, broken) if run == "candidate" else (broken, good)))
    if run == "previous":
        hot.swap()
    looked = itertools.count()
    found = shown(hot, run, lambda e: bool(e.errors) or next(looked) > 50)
    assert bool(found.errors) is errors
    assert broken.looks > 0


def test_the_share_bounds_how_often_it_looks(hot: HotEngine) -> None:
    class Slow(Watching):
        def detect(self, frame: np.ndarray[tuple[int, ...], np.dtype[np.uint8]]) -> Detections:
            time.sleep(0.02)
            return super().detect(frame)

    slow = Slow("1.1", bool)
    load(hot, Watching("1.0", bool), slow)
    began = time.monotonic()
    shown(hot, "candidate", lambda _: time.monotonic() - began > 2 and slow.looks, share=0.1)
    took = time.monotonic() - began
    assert 1 <= slow.looks <= 0.1 * took / 0.02 + 2
