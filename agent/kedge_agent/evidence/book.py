"""Adds up what two engines say of the same live frames."""

from __future__ import annotations

import statistics
from collections import deque

from kedge_agent.detector import Detections
from kedge_agent.evidence.loss import LossTest
from kedge_agent.evidence.pace import PaceTest
from kedge_agent.evidence.summary import Evidence, Proof
from kedge_agent.evidence.tracks import Stills, Tracker
from kedge_shared.detections import Score
from kedge_shared.manifest import Manifest
from kedge_shared.pairing import Pairing

_TIMES = 400


class EvidenceBook:
    """Adds up comparisons into :class:`Evidence`. Not thread-safe.

    Evidence is sums: it takes as much room after a month as after a minute.

    Args:
        new: Manifest of the newer engine, whose ``shadow`` section says what must hold.
        began: Seconds, on the clock that :meth:`add` is told.
        stills: No two frames show the same objects; each frame counts once.
    """

    def __init__(self, new: Manifest, began: float, *, stills: bool = False) -> None:
        self._pairing = Pairing(new.output, new.shadow)
        self._loss = LossTest(new.shadow)
        self._pace = PaceTest(new.budgets.latency_ratio)
        self._tracker = Stills() if stills else Tracker()
        self._score = Score()
        self._frames = self._objects = self._answered = self._errors = 0
        self._missed: list[float] = [0.0, 0.0]
        self._gained: list[float] = [0.0, 0.0]
        self._old_ms: deque[float] = deque(maxlen=_TIMES)
        self._new_ms: deque[float] = deque(maxlen=_TIMES)
        self._began = began

    def add(self, old: Detections, new: Detections, at: float) -> None:
        """Takes what both said of one frame, looked at ``at`` seconds."""
        self._frames += 1
        self._old_ms.append(old.ms)
        self._new_ms.append(new.ms)
        self._pace.add(old.ms, new.ms)
        self._answered += bool(len(new.rows))
        seen = self._pairing(old, new)
        # An empty scene is no evidence; objects that were in it before are gone.
        self._objects += bool(len(seen))
        self._score += seen.score
        for track in self._tracker.see(seen, at):
            self._loss.add(track.missed, track.gained)
            _note(self._missed, track.missed)
            _note(self._gained, track.gained)

    def fail(self) -> None:
        """Counts a frame on which the newer engine failed."""
        self._errors += 1

    def evidence(self, live_p95_ms: float, stride: float, at: float) -> Evidence:
        """Returns what there is so far."""
        found = self._loss.findings
        return Evidence(
            frames=self._frames,
            objects=self._objects,
            answered=self._answered,
            tracks=self._tracker.total,
            hits=self._score.hits,
            old_only=self._score.missed,
            new_only=self._score.extra,
            missed=_mean(self._missed),
            gained=_mean(self._gained),
            proof=Proof(
                missing=float(found.missing), worse=float(found.worse), blind=float(found.blind),
                slow=self._pace.log, safe=float(found.safe), sighted=float(found.sighted),
            ),
            old_ms=statistics.median(self._old_ms) if self._old_ms else 0.0,
            new_ms=statistics.median(self._new_ms) if self._new_ms else 0.0,
            new_p95_ms=live_p95_ms,
            stride=stride,
            errors=self._errors,
            seconds=at - self._began,
        )  # fmt: skip


def _note(sums: list[float], share: float) -> None:
    if share == share:  # noqa: PLR0124 - NaN: this engine never saw the track
        sums[0] += share
        sums[1] += 1


def _mean(sums: list[float]) -> float:
    return sums[0] / sums[1] if sums[1] else 0.0
