"""Shadow and reverse shadow: the engine that does not serve, on sampled live frames.

Evidence is always told from the older to the newer engine, whichever serves. Frame times of the
two are comparable only with care: the shadow's thread runs at the lowest priority, so a busy
board makes it look slower than it is. Before the swap that would harm a good candidate, so the
ratio is judged in preflight, where both run alike; after it, the bias is on the safe side.
"""

from __future__ import annotations

import statistics
import threading
import time
from collections import deque

import numpy as np

from kedge_agent import limits
from kedge_agent.detector import Detections
from kedge_agent.errors import EngineError
from kedge_agent.hotswap import Answer, HotEngine
from kedge_agent.local_protocol import Evidence, SlotName
from kedge_agent.tracker import TrackCounter
from kedge_shared.detections import Array, Score, compare
from kedge_shared.manifest import Manifest
from kedge_shared.vision import Frame

#: Evidence frames of a block: neighbours are not independent, blocks nearly are.
BLOCK = 10
_IOU = 0.5
#: Above the reporting threshold by this, an object is one that must be seen again; those right at
#: the threshold flicker in any engine.
_SURE = 0.15
_TIMES = 400


class EvidenceBook:
    """Adds up comparisons into :class:`Evidence`. Not thread-safe.

    Args:
        new: Manifest of the newer engine, whose ``shadow`` section says what must hold.
    """

    def __init__(self, new: Manifest) -> None:
        self._new = new
        self._score = Score()
        self._block = Score()
        self._in_block = 0
        self._blocks: list[float] = []
        self._tracks = TrackCounter()
        self._frames = self._objects = self._errors = 0
        self._old_ms: deque[float] = deque(maxlen=_TIMES)
        self._new_ms: deque[float] = deque(maxlen=_TIMES)
        self._started = time.monotonic()

    def add(self, old: Detections, new: Detections) -> None:
        """Takes what both said of one frame."""
        self._frames += 1
        self._old_ms.append(old.ms)
        self._new_ms.append(new.ms)
        score, seen = compare_engines(old, new, self._new)
        if not len(seen):
            return
        self._objects += 1
        self._tracks.see(seen)
        self._score += score
        self._block += score
        self._in_block += 1
        if self._in_block == BLOCK:
            self._close_block()

    def fail(self) -> None:
        """Counts a frame on which the newer engine failed."""
        self._errors += 1

    def evidence(self, live_p95_ms: float) -> Evidence:
        """Returns what there is so far."""
        return Evidence(
            frames=self._frames,
            objects=self._objects,
            tracks=self._tracks.total,
            hits=self._score.hits,
            old_only=self._score.missed,
            new_only=self._score.extra,
            blocks=tuple(self._blocks),
            old_ms=statistics.median(self._old_ms) if self._old_ms else 0.0,
            new_ms=statistics.median(self._new_ms) if self._new_ms else 0.0,
            new_p95_ms=live_p95_ms,
            errors=self._errors,
            seconds=time.monotonic() - self._started,
        )

    def _close_block(self) -> None:
        both_ways = self._new.shadow.must_hold == "agreement"
        total = self._block.hits + self._block.missed + (self._block.extra if both_ways else 0)
        if total:
            self._blocks.append(self._block.hits / total)
        self._block, self._in_block = Score(), 0


def compare_engines(old: Detections, new: Detections, manifest: Manifest) -> tuple[Score, Array]:
    """Compares two engines on one frame, by class *name*.

    Args:
        old: Of the older engine.
        new: Of the newer one.
        manifest: Of the newer one: renamed classes, reporting threshold.

    Returns:
        The score, the older engine being the reference; and the objects that either is sure of.
    """
    sure = manifest.output.conf + _SURE
    before = _renamed(old, manifest)
    both = compare(before[before[:, 4] >= sure], new.rows, iou=_IOU)
    back = compare(new.rows[new.rows[:, 4] >= sure], before, iou=_IOU)
    seen = before[before[:, 4] >= sure]
    extra = new.rows[new.rows[:, 4] >= sure]
    return Score(both.hits, both.missed, back.missed), seen if len(seen) else extra


def _renamed(old: Detections, manifest: Manifest) -> Array:
    names = {name: at for at, name in enumerate(manifest.output.classes)}
    renamed = manifest.shadow.class_map
    index = [names.get(renamed.get(name, name), -1) for name in old.classes]
    rows: Array = old.rows.copy()
    if len(rows):
        rows[:, 5] = np.asarray(index, dtype=np.float32)[rows[:, 5].astype(int)]
    return rows


class Shadow(threading.Thread):
    """Runs one engine beside the live one, within a share of the time.

    Args:
        hot: Holds the engines.
        name: Which of them to run: ``candidate`` before a swap, ``previous`` after it.
        book: Where comparisons go.
        share: Share of the time it may take, 0..1.
    """

    def __init__(self, hot: HotEngine, name: SlotName, book: EvidenceBook, share: float) -> None:
        super().__init__(name="shadow", daemon=True)
        self._hot, self._name_of, self.book, self._share = hot, name, book, share
        self._job: tuple[Frame, Answer] | None = None
        self._wake = threading.Condition()
        self._halt = False
        self._free_at = 0.0

    def offer(self, frame: Frame, answer: Answer) -> None:
        """Takes a live frame if the shadow is idle and within its share; else lets it go."""
        if time.monotonic() < self._free_at:
            return
        with self._wake:
            if self._job is None:
                self._job = frame, answer
                self._wake.notify()

    def stop(self) -> None:
        """Ends the thread and waits for the frame at hand."""
        with self._wake:
            self._halt = True
            self._wake.notify()
        self.join(timeout=10)

    def run(self) -> None:
        """Compares until stopped."""
        limits.be_nice_thread()
        while True:
            with self._wake:
                while self._job is None and not self._halt:
                    self._wake.wait()
                if self._halt or self._job is None:
                    return
                frame, answer = self._job
            started = time.monotonic()
            self._compare(frame, answer)
            took = time.monotonic() - started
            self._free_at = time.monotonic() + took * (1 / self._share - 1)
            with self._wake:
                self._job = None

    def _compare(self, frame: Frame, answer: Answer) -> None:
        try:
            with self._hot.borrow(self._name_of) as detector:
                if detector is None:
                    return
                found = detector.detect(frame)
        except EngineError:
            if self._name_of == "candidate":
                self.book.fail()
            return
        if self._name_of == "candidate":
            self.book.add(answer.found, found)
            if not found.finite:
                self.book.fail()
        else:
            self.book.add(found, answer.found)
