"""A runner without engines: it speaks the local protocol and does as the test says."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from kedge_agent.evidence.summary import Evidence, Proof
from kedge_agent.local_protocol import (
    Answer,
    Done,
    Drop,
    Failed,
    Hello,
    LoadCandidate,
    RollBack,
    RunnerState,
    Slot,
    StartShadow,
    Status,
    Swap,
    TakeWindow,
    Telemetry,
)
from kedge_shared.protocol import Window

#: Both engines see the same, on enough objects to be sure of it.
AGREE = Evidence(frames=400, objects=400, answered=400, tracks=80, hits=400, old_ms=5, new_ms=5,
                 new_p95_ms=6, proof=Proof(safe=7.0, sighted=40.0))  # fmt: skip
#: The newer misses four in five.
DISAGREE = Evidence(frames=400, objects=400, answered=80, tracks=40, hits=80, old_only=320,
                    missed=0.8, old_ms=5, new_ms=5, new_p95_ms=6,
                    proof=Proof(missing=90.0, worse=20.0, blind=30.0))  # fmt: skip


@dataclass
class SimRunner:
    """Where it stands, and what it does when asked.

    Attributes:
        fails: Kind of request → answer instead of carrying it out.
        before: Evidence of the shadow before the swap.
        after: Evidence of the reverse shadow.
        asked: Kinds of requests that change something, in order.
    """

    fails: dict[type, Failed] = field(default_factory=dict)
    before: Evidence = AGREE
    after: Evidence = AGREE
    fell_back: str = ""
    active: Slot | None = None
    candidate: Slot | None = None
    previous: Slot | None = None
    frames: int = 0
    asked: list[str] = field(default_factory=list)
    falls_back_in_probation: str = ""

    def handle(self, request: Any) -> Answer:
        self.frames += 40
        if isinstance(request, Hello | Status):
            return self.state()
        if isinstance(request, TakeWindow):
            return Telemetry(Window(started=0, seconds=1, frames=5, confidence=(0,) * 19 + (5,)))
        self.asked.append(type(request).__name__)
        if type(request) in self.fails:
            return self.fails[type(request)]
        self._change(request)
        return Done(self.state())

    def _change(self, request: Any) -> None:
        if isinstance(request, LoadCandidate):
            self.candidate = request.slot
        elif isinstance(request, Swap):
            self.active, self.previous, self.candidate = self.candidate, self.active, None
            if self.falls_back_in_probation:
                self.active, self.previous = self.previous, None
                self.fell_back = self.falls_back_in_probation
        elif isinstance(request, RollBack):
            self.active, self.previous = self.previous, None
        elif isinstance(request, Drop):
            setattr(self, request.slot, None)
        else:
            assert isinstance(request, StartShadow)

    def state(self) -> RunnerState:
        evidence = self.before if self.candidate else self.after if self.previous else None
        # No such process: a stray kill of the updater must hit nobody.
        return RunnerState(
            pid=2**22 + 1, active=self.active, candidate=self.candidate, previous=self.previous,
            fell_back=self.fell_back, evidence=evidence, frames=self.frames,
        )  # fmt: skip
