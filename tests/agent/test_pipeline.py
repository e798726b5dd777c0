"""The live loop: it outlives engines, frames and sinks; the watchdog ends what it cannot mend."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest

from kedge_agent.detector import Detections
from kedge_agent.frames import Captured, LatestFrames
from kedge_agent.hotswap import HotEngine
from kedge_agent.pipeline import Loop
from kedge_agent.pulse import Pulse, lost
from kedge_agent.sinks.callback import Callback
from kedge_agent.sinks.queued import Queued
from kedge_agent.telemetry import Telemetry
from tests.sim.camera import PICTURE
from tests.sim.engine import SimDetector
from tests.waiting import PATIENCE, wait_for


@contextmanager
def running(engine: Any, *names: str) -> Iterator[tuple[Loop, LatestFrames, list[Any]]]:
    slots, got = LatestFrames(names or ("main",)), []
    sink = Queued("test", lambda: Callback(got.append), 1000)
    loop = Loop(slots, HotEngine(engine), [sink], Telemetry())
    loop.start()
    yield loop, slots, got
    loop.stop()
    loop.join(PATIENCE)
    sink.close()


class Raises(SimDetector):
    """Raises what the loop does not know, on frames that are dark."""

    def detect(self, frame: Any) -> Detections:
        if not frame.any():
            raise ZeroDivisionError("a bug in a post-processing")
        return super().detect(frame)


def test_the_loop_outlives_whatever_an_engine_raises() -> None:
    with running(Raises("odd")) as (loop, slots, got):
        for seq in range(5):
            slots.put(Captured(seq, PICTURE, 0.0))
            wait_for(lambda s=seq: loop.pulse().errors_in_a_row == s + 1)  # type: ignore[misc]
        assert loop.pulse().failing_seconds > 0
        slots.put(Captured(5, PICTURE + 1, 0.0))
        wait_for(lambda: got)
        pulse = loop.pulse()
        assert (pulse.errors_in_a_row, pulse.failing_seconds, pulse.alive) == (0, 0, True)
        assert [each.seq for each in got] == [5]


def test_a_foreign_error_of_the_new_engine_brings_the_old_one_back_on_that_frame() -> None:
    hot = HotEngine(SimDetector("old"))  # type: ignore[arg-type]
    hot.load(lambda: Raises("new"))  # type: ignore[arg-type,return-value]
    hot.swap()
    answer = hot.infer(PICTURE)
    assert answer is not None
    assert answer.slot.release == "old"
    assert "ZeroDivisionError" in hot.fell_back
    hot.close()


class Shadowed:
    """Counts which source's frames a shadow was offered."""

    def __init__(self) -> None:
        self.seen: list[int] = []

    def offer(self, frame: Any, _: Any) -> None:
        self.seen.append(int(frame[0, 0, 0]))


def test_a_shadow_sees_one_source_and_another_when_that_is_silent(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with running(SimDetector("e"), "a", "b") as (loop, slots, got):
        loop.shadow = shadow = Shadowed()  # type: ignore[assignment]

        def give(source: str) -> None:
            before = len(got)
            image = np.full_like(PICTURE, ord(source))
            slots.put(Captured(before, image, 0.0, source))
            wait_for(lambda: len(got) == before + 1)

        for source in "abab":
            give(source)
        assert bytes(shadow.seen) == b"aa"
        monkeypatch.setattr("kedge_agent.pipeline._WATCHED_SECONDS", 0.0)
        give("b")
        monkeypatch.setattr("kedge_agent.pipeline._WATCHED_SECONDS", 60.0)
        give("a")
        give("b")
        wait_for(lambda: bytes(shadow.seen) == b"aabb")


@pytest.mark.parametrize(
    ("pulse", "said"),
    [
        (Pulse(), ""),
        (Pulse(busy_seconds=19.9), ""),
        (Pulse(busy_seconds=20.1), "the engine hangs"),
        (Pulse(failing_seconds=20.1, errors_in_a_row=10), "failed on 10 frames"),
        (Pulse(failing_seconds=19.9, errors_in_a_row=500), ""),
        (Pulse(failing_seconds=500, errors_in_a_row=9), ""),
        (Pulse(alive=False), "ended"),
    ],
)
def test_what_a_watchdog_ends(pulse: Pulse, said: str) -> None:
    assert (said in lost(pulse)) if said else not lost(pulse)
