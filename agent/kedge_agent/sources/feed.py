"""Keeps the sources going: opened again after an error, left behind when they hang.

A :class:`Feed` decides when told the time; the one thread of :class:`Feeds` tells it. So a source
that hangs, fails or ends stops no other one, and nothing here waits for a device.
"""

from __future__ import annotations

import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence

from kedge_agent.frames import Captured, LatestFrames
from kedge_agent.local_protocol import SourcePhase, SourceState
from kedge_agent.sources.base import Opener
from kedge_agent.sources.budget import RestartBudget, after_failure
from kedge_agent.sources.reader import Reader
from kedge_shared.vision import Frame

#: Threads that hang in a driver cannot be ended; beyond so many of one source no new one is made.
_MOST_STUCK = 3
_TICK_SECONDS = 0.1


class Feed:
    """One source over all its lives.

    Args:
        name: Of the source.
        make: Opens it.
        slots: Where its frames go.
        stuck_seconds: A read that takes longer hangs.
        budget: Of its restarts.
        clock: Monotonic seconds.
    """

    def __init__(
        self,
        name: str,
        make: Opener,
        slots: LatestFrames,
        stuck_seconds: float = 15.0,
        budget: RestartBudget | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.name = name
        self._make, self._slots, self._stuck_after = make, slots, stuck_seconds
        self._budget, self._clock = budget or RestartBudget(), clock
        self._reader: Reader | None = None
        self._stuck: list[Reader] = []
        self._phase: SourcePhase = "waiting"
        self._due = clock()
        self._failures: deque[float] = deque(maxlen=self._budget.restarts + 1)
        self._in_a_row = self._reopened = self._unreadable = self._seq = 0
        self._why = ""

    def state(self) -> SourceState:
        """Returns where it stands."""
        here = self._reader.unreadable if self._reader else 0
        return SourceState(
            name=self.name, phase=self._phase, frames=self._seq,
            dropped=self._slots.dropped_of(self.name), unreadable=self._unreadable + here,
            reopened=self._reopened, why=self._why,
        )  # fmt: skip

    def tick(self) -> None:
        """Looks at it: starts, gives up, restarts what is due."""
        now, reader = self._clock(), self._reader
        if reader is None:
            if self._phase != "finished" and now >= self._due:
                self._open(now)
            return
        since = reader.calling_since
        if reader.ended:
            self._over(reader, now)
        elif since is not None and now - since > self._stuck_after:
            self._stuck.append(reader)
            self._failed(reader, f"hangs for more than {self._stuck_after:.0f} s", now)

    def stop(self) -> None:
        """Ends its reader as soon as the source lets go."""
        if self._reader is not None:
            self._reader.abandon()

    def _open(self, now: float) -> None:
        self._stuck = [each for each in self._stuck if not each.ended]
        if len(self._stuck) >= _MOST_STUCK:
            self._declare(f"{len(self._stuck)} reads hang in the driver")
            self._due = now + self._budget.rest_seconds
            return
        # Which reader a frame is from must be known: an abandoned one may still hold one.
        self._reader = Reader(self.name, self._make, self._put, self._clock)
        self._reader.start()

    def _put(self, image: Frame) -> None:
        if threading.current_thread() is not self._reader:
            return
        self._phase, self._why, self._in_a_row = "live", "", 0
        self._slots.put(Captured(self._seq, image, self._clock(), self.name))
        self._seq += 1

    def _over(self, reader: Reader, now: float) -> None:
        if reader.why:
            self._failed(reader, reader.why, now)
            return
        self._forget(reader)
        self._phase = "finished"

    def _failed(self, reader: Reader, why: str, now: float) -> None:
        self._forget(reader)
        self._reopened += 1
        self._in_a_row += 1
        self._failures.append(now)
        restart = after_failure(self._budget, self._failures, now, self._in_a_row)
        self._due = now + restart.wait_seconds
        if restart.failed:
            self._declare(why)
        else:
            self._phase, self._why = "waiting", why

    def _declare(self, why: str) -> None:
        if self._phase != "failed":
            print(f"runner: source {self.name} failed: {why}", file=sys.stderr, flush=True)
        self._phase, self._why = "failed", why

    def _forget(self, reader: Reader) -> None:
        reader.abandon()
        self._unreadable += reader.unreadable
        self._reader = None


class Feeds(threading.Thread):
    """The thread that looks after all sources.

    Attributes:
        opens: Set it when frames are wanted: before, no source is opened.
    """

    def __init__(self, feeds: Sequence[Feed]) -> None:
        super().__init__(name="sources", daemon=True)
        self._feeds = list(feeds)
        self._halt = threading.Event()
        self.opens = threading.Event()

    def state(self) -> tuple[SourceState, ...]:
        """Returns where each source stands."""
        return tuple(each.state() for each in self._feeds)

    def stop(self) -> None:
        """Ends all of them soon."""
        self._halt.set()
        self.opens.set()
        for each in self._feeds:
            each.stop()

    def run(self) -> None:
        """Looks after them until stopped."""
        self.opens.wait()
        while not self._halt.is_set():
            for each in self._feeds:
                each.tick()
            self._halt.wait(_TICK_SECONDS)
