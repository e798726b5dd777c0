"""The bounded queue before each sink: a slow or dead one costs its own results, never the loop."""

from __future__ import annotations

import sys
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import replace

from kedge_agent.local_protocol import SinkState
from kedge_agent.sinks.base import Result, Sink

_CLOSE_SECONDS = 2.0


class Queued(threading.Thread):
    """A sink with its thread.

    Args:
        name: For people.
        make: Opens the sink, at its first result and after it could not be opened.
        room: Results that may wait for it; then the oldest is dropped.
        wants_image: Whether results come with their frame; each that waits holds one.
    """

    def __init__(
        self, name: str, make: Callable[[], Sink], room: int = 16, *, wants_image: bool = True
    ) -> None:
        super().__init__(name=f"sink {name}", daemon=True)
        self._name, self._make, self._room, self._wants_image = name, make, room, wants_image
        self._sink: Sink | None = None
        self._wake = threading.Condition()
        self._waiting: deque[Result] = deque()
        self._halt = False
        self._taken = self._dropped = self._errors = 0
        self._why = ""
        self.start()

    def put(self, result: Result) -> None:
        """Leaves a result; never waits for the sink."""
        light = result if self._wants_image else replace(result, image=None)
        with self._wake:
            if len(self._waiting) >= self._room:
                self._waiting.popleft()
                self._dropped += 1
            self._waiting.append(light)
            self._wake.notify()

    def state(self) -> SinkState:
        """Returns where it stands."""
        return SinkState(
            name=self._name, taken=self._taken, dropped=self._dropped, errors=self._errors,
            why=self._why,
        )  # fmt: skip

    def close(self) -> None:
        """Lets the sink take what waits, for a while, and ends."""
        with self._wake:
            self._halt = True
            self._wake.notify()
        self.join(_CLOSE_SECONDS)

    def run(self) -> None:
        """Hands results over until closed."""
        while (result := self._next()) is not None:
            try:
                if self._sink is None:
                    self._sink = self._make()
                self._sink.put(result)
                self._taken += 1
                self._why = ""
            # Boundary: a sink is a disk, a network or people's own code.
            except Exception as error:  # noqa: BLE001
                self._failed(error)
        try:
            if self._sink is not None:
                self._sink.close()
        # Boundary: as above.
        except Exception as error:  # noqa: BLE001
            self._failed(error)

    def _next(self) -> Result | None:
        with self._wake:
            while not self._waiting and not self._halt:
                self._wake.wait()
            return self._waiting.popleft() if self._waiting else None

    def _failed(self, error: Exception) -> None:
        self._errors += 1
        why = " ".join(str(error).split())[:200] or type(error).__name__
        if not self._why:  # once a spell, not once a frame
            print(f"runner: sink {self._name}: {why}", file=sys.stderr, flush=True)
        self._why = why
