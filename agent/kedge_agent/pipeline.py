"""The live loop: latest frame → engine → sinks. Nothing in it waits for anything else."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence

from kedge_agent.errors import EngineError, EngineGone
from kedge_agent.frames import Captured, LatestFrames
from kedge_agent.hotswap import Answer, HotEngine
from kedge_agent.pulse import Pulse
from kedge_agent.shadow import Shadow
from kedge_agent.sinks.base import Result
from kedge_agent.sinks.queued import Queued
from kedge_agent.telemetry import Telemetry

_WAIT_SECONDS = 0.5
#: A shadow looks at one source, since objects are followed from frame to frame; at another one
#: when that gave nothing for so long, seconds.
_WATCHED_SECONDS = 5.0


class Loop(threading.Thread):
    """Runs frames through the engine until stopped.

    Attributes:
        sinks: Get each answer; none of them is waited for.
        shadow: Gets a look at each frame of one source while it is set.
        longest_gap_ms: Longest time between two answers since :meth:`watch_gap`.
    """

    def __init__(
        self,
        slots: LatestFrames,
        hot: HotEngine,
        sinks: Sequence[Queued],
        telemetry: Telemetry,
    ) -> None:
        super().__init__(name="loop", daemon=True)
        self._slots, self._hot, self._telemetry = slots, hot, telemetry
        self._halt = threading.Event()
        self.sinks = list(sinks)
        self.shadow: Shadow | None = None
        self.longest_gap_ms = 0.0
        self._busy_since: float | None = None
        self._failing_since: float | None = None
        self._errors_in_a_row = 0
        self._gone = False
        self._last_answer: float | None = None
        self._watched, self._watched_at = "", 0.0

    def stop(self) -> None:
        """Ends the loop after the frame at hand."""
        self._halt.set()

    def watch_gap(self) -> None:
        """Begins to look for the longest gap anew."""
        self.longest_gap_ms = 0.0

    def pulse(self) -> Pulse:
        """Returns what the watchdog judges."""
        now = time.monotonic()
        busy, failing = self._busy_since, self._failing_since
        return Pulse(
            busy_seconds=now - busy if busy is not None else 0.0,
            failing_seconds=now - failing if failing is not None else 0.0,
            errors_in_a_row=self._errors_in_a_row,
            gone=self._gone,
            alive=self.is_alive(),
        )

    def run(self) -> None:
        """Takes frames until stopped."""
        while not self._halt.is_set():
            frame = self._slots.take(_WAIT_SECONDS)
            if frame is not None:
                self._one(frame)

    def _one(self, frame: Captured) -> None:
        self._busy_since = time.monotonic()
        try:
            answer = self._hot.infer(frame.image)
        except EngineError as error:
            self._failed(error)
            return
        finally:
            self._busy_since = None
        self._failing_since, self._errors_in_a_row, self._gone = None, 0, False
        if answer is None:
            # Between two engines that do not fit side by side: lost like one that nobody took.
            self._slots.lose(frame.source)
        else:
            self._answered(frame, answer)

    def _failed(self, error: EngineError) -> None:
        self._telemetry.error()
        self._gone = self._gone or isinstance(error, EngineGone)
        self._errors_in_a_row += 1
        if self._failing_since is None:
            self._failing_since = time.monotonic()

    def _answered(self, frame: Captured, answer: Answer) -> None:
        result = Result(
            frame.source, frame.seq, time.time(), frame.image, answer.found, answer.slot
        )
        for each in self.sinks:
            each.put(result)
        now = time.monotonic()
        if self._last_answer is not None:
            self.longest_gap_ms = max(self.longest_gap_ms, (now - self._last_answer) * 1000)
        self._last_answer = now
        self._telemetry.frame(answer.found)
        shadow = self.shadow
        if shadow is not None and not answer.instead and self._watches(frame.source, now):
            shadow.offer(frame.image, answer)

    def _watches(self, source: str, now: float) -> bool:
        if source != self._watched and now - self._watched_at < _WATCHED_SECONDS:
            return False
        self._watched, self._watched_at = source, now
        return True
