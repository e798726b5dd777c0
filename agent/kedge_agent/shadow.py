"""Shadow and reverse shadow: the engine that does not serve, on sampled live frames.

Evidence is always told from the older to the newer engine, whichever serves. Frame times of the
two are comparable only with care: the shadow's thread runs at the lowest priority, so a busy
board makes it look slower than it is. Before the swap that would harm a good candidate, so the
ratio is judged in preflight, where both run alike; after it, that bias is on the safe side. Another
one is not: the engine that serves is woken for each frame, its shadow finds the caches warm. So
what the pairs say counts only with the older engine's own time in service (``live_before_ms``).
"""

from __future__ import annotations

import threading
import time

from kedge_agent import limits
from kedge_agent.errors import EngineError
from kedge_agent.evidence.book import EvidenceBook
from kedge_agent.evidence.budget import Budget
from kedge_agent.evidence.summary import Evidence
from kedge_agent.hotswap import Answer, HotEngine
from kedge_agent.local_protocol import SlotName
from kedge_shared.manifest import Manifest
from kedge_shared.vision import Frame


class Shadow(threading.Thread):
    """Runs one engine beside the live one, within a share of the time.

    Args:
        hot: Holds the engines.
        name: Which of them to run: ``candidate`` before a swap, ``previous`` after it.
        new: Manifest of the newer of the two.
        share: Share of the time it may take, 0..1.
        stills: No two frames show the same objects.
    """

    def __init__(
        self, hot: HotEngine, name: SlotName, new: Manifest, share: float, *, stills: bool = False
    ) -> None:
        super().__init__(name="shadow", daemon=True)
        self._hot, self._name_of = hot, name
        self._book = EvidenceBook(new, time.monotonic(), stills=stills)
        self._budget = Budget(share)
        self._job: tuple[Frame, Answer, float] | None = None
        self._took: float | None = None
        self._wake = threading.Condition()
        self._halt = False
        self._last: float | None = None

    def offer(self, frame: Frame, answer: Answer) -> None:
        """Takes a live frame if the shadow is idle and within its share; else lets it go.

        Never waits: the shadow's thread is the nicest of the board and may hold the lock long.
        """
        now = time.monotonic()
        period = now - self._last if self._last is not None else 0.0
        self._last = now
        # In this order: a shadow that is seen idle has said what it took.
        idle = self._job is None
        took, self._took = self._took, None
        self._budget.frame(period * 1000, answer.found.ms, shadowed=not idle or took is not None)
        if took is not None:
            self._budget.ran(took)
        if idle and self._budget.may_run() and self._wake.acquire(blocking=False):
            self._job = frame, answer, now
            self._wake.notify()
            self._wake.release()

    def evidence(self, live_p95_ms: float) -> Evidence:
        """Returns what there is so far."""
        return self._book.evidence(live_p95_ms, self._budget.stride, time.monotonic())

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
                frame, answer, at = self._job
            started = time.monotonic()
            self._compare(frame, answer, at)
            self._took = (time.monotonic() - started) * 1000
            self._job = None

    def _compare(self, frame: Frame, answer: Answer, at: float) -> None:
        try:
            with self._hot.borrow(self._name_of) as detector:
                if detector is None:
                    return
                found = detector.detect(frame)
        except EngineError:
            if self._name_of == "candidate":
                self._book.fail()
            return
        if self._name_of == "candidate":
            self._book.add(answer.found, found, at)
            if not found.finite:
                self._book.fail()
        else:
            self._book.add(found, answer.found, at)
