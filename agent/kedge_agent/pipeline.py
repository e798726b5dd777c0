"""The live loop: latest frame → engine → sink. Nothing in it waits for anything else."""

from __future__ import annotations

import threading
import time

from kedge_agent.errors import EngineError
from kedge_agent.frames import Captured, LatestFrame
from kedge_agent.hotswap import Answer, HotEngine
from kedge_agent.shadow import Shadow
from kedge_agent.sinks.base import Sink
from kedge_agent.telemetry import Telemetry

_WAIT_SECONDS = 0.5


class Loop(threading.Thread):
    """Runs frames through the engine until stopped.

    Attributes:
        shadow: Gets a look at each frame while it is set.
        longest_gap_ms: Longest time between two sink frames since :meth:`watch_gap`.
        busy_since: When the frame at hand was begun, monotonic seconds; ``None`` between frames.
    """

    def __init__(self, slot: LatestFrame, hot: HotEngine, sink: Sink, telemetry: Telemetry) -> None:
        super().__init__(name="loop", daemon=True)
        self._slot, self._hot, self._sink, self._telemetry = slot, hot, sink, telemetry
        self._halt = threading.Event()
        self.shadow: Shadow | None = None
        self.longest_gap_ms = 0.0
        self.busy_since: float | None = None
        self._last_sunk: float | None = None

    def stop(self) -> None:
        """Ends the loop after the frame at hand."""
        self._halt.set()

    def watch_gap(self) -> None:
        """Begins to look for the longest gap anew."""
        self.longest_gap_ms = 0.0

    def run(self) -> None:
        """Takes frames until stopped."""
        while not self._halt.is_set():
            frame = self._slot.take(_WAIT_SECONDS)
            if frame is not None:
                self._one(frame)

    def _one(self, frame: Captured) -> None:
        self.busy_since = time.monotonic()
        try:
            answer = self._hot.infer(frame.image)
        except EngineError:
            self._telemetry.error()
            answer = None
        self.busy_since = None
        if answer is not None:
            self._sink.put(frame, answer.found, answer.slot)
            self._sunk(frame, answer)

    def _sunk(self, frame: Captured, answer: Answer) -> None:
        now = time.monotonic()
        if self._last_sunk is not None:
            self.longest_gap_ms = max(self.longest_gap_ms, (now - self._last_sunk) * 1000)
        self._last_sunk = now
        self._telemetry.frame(answer.found)
        shadow = self.shadow
        if shadow is not None:
            shadow.offer(frame.image, answer)
