"""Sources: opened again within a budget, left behind when they hang, never a dead or busy loop."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kedge_agent.errors import SourceError
from kedge_agent.frames import Captured, LatestFrames
from kedge_agent.sources.budget import Restart, RestartBudget, after_failure
from kedge_agent.sources.feed import Feed, Feeds
from kedge_agent.sources.iterable import Iterated
from kedge_agent.sources.live import Live
from kedge_agent.sources.opening import opener
from kedge_agent.sources.reader import is_picture
from kedge_agent.specs import SourceSpec, called, sources_of
from kedge_shared.errors import InputError
from tests.sim.camera import PICTURE, Clock, SimCapture, SimSource
from tests.sim.rtsp import rtsp_camera
from tests.waiting import PATIENCE, wait_for

BUDGET = RestartBudget(
    restarts=3, window_seconds=100, first_seconds=1, longest_seconds=4, rest_seconds=50
)


@pytest.mark.parametrize(
    ("failures", "now", "in_a_row", "expected"),
    [
        ([0.0], 0.0, 1, Restart(1, failed=False)),
        ([0.0, 1.0], 1.0, 2, Restart(2, failed=False)),
        ([0.0, 1.0, 3.0], 3.0, 3, Restart(4, failed=False)),
        ([0.0, 1.0, 3.0, 7.0], 7.0, 4, Restart(50, failed=True)),
        # frames came between: no longer wait, but the budget counts all the same
        ([0.0, 1.0, 3.0, 7.0], 7.0, 1, Restart(50, failed=True)),
        # the window lets go of the first
        ([0.0, 1.0, 3.0, 100.0], 100.0, 1, Restart(1, failed=False)),
        ([0.0], 0.0, 100_000, Restart(4, failed=False)),
    ],
)
def test_the_budget(failures: list[float], now: float, in_a_row: int, expected: Restart) -> None:
    assert after_failure(BUDGET, failures, now, in_a_row) == expected


class Bench:
    """A feed on a clock of its own; each life of the source is the next of a list."""

    def __init__(self, *lives: Any, stuck_seconds: float = 5.0) -> None:
        self.clock = Clock()
        self.slots = LatestFrames(["cam"])
        self.lives, self.opened = list(lives), 0
        self.feed = Feed("cam", self._make, self.slots, stuck_seconds, BUDGET, self.clock)

    def _make(self) -> SimSource:
        self.opened += 1
        life = self.lives[min(self.opened, len(self.lives)) - 1]
        if isinstance(life, Exception):
            raise life
        found: SimSource = life
        return found

    def settle(self) -> None:
        """Ticks until the reader at hand is over or hangs in its source."""
        before = self.feed.state().reopened
        wait_for(lambda: self.feed.tick() or self.feed.state().reopened > before
                 or self.feed.state().phase in {"finished", "failed"})  # fmt: skip


def test_a_source_that_breaks_is_opened_again_later_and_later() -> None:
    bench = Bench(SimSource([PICTURE, OSError("unplugged")]), OSError("no device"))
    bench.settle()
    state = bench.feed.state()
    assert (state.phase, state.frames, state.why) == ("waiting", 1, "unplugged")
    # A frame had come: the shortest wait; then twice as long each time.
    for opened, wait in ((1, 1), (2, 2)):
        bench.clock.now += wait - 0.1
        bench.feed.tick()
        assert bench.feed._reader is None, "not before its time"
        bench.clock.now += 0.2
        bench.settle()
        assert bench.opened == opened + 1


def test_a_source_that_goes_on_failing_is_declared_failed_and_looked_at_seldom() -> None:
    bench = Bench(OSError("no device"), OSError("no"), OSError("no"), OSError("gone"),
                  SimSource([PICTURE], threading.Event()))  # fmt: skip
    for _ in range(4):
        bench.settle()
        bench.clock.now += 4
    state = bench.feed.state()
    assert (state.phase, state.reopened, state.why) == ("failed", 4, "gone")
    bench.clock.now += 45
    bench.feed.tick()
    assert bench.opened == 4, "not before it has rested"
    bench.clock.now += 2
    bench.feed.tick()
    wait_for(lambda: bench.feed.state().phase == "live")
    assert bench.feed.state().why == "", "plugged in again, it is well again"
    bench.lives[-1].hangs.set()


def test_a_source_that_hangs_is_left_behind_and_its_late_frame_is_not_taken() -> None:
    hang = threading.Event()
    stuck = SimSource([PICTURE], hang)
    bench = Bench(stuck, SimSource([PICTURE], threading.Event()))
    bench.feed.tick()
    wait_for(lambda: bench.feed.state().frames == 1)
    wait_for(lambda: bench.feed._reader and bench.feed._reader.calling_since)
    bench.clock.now += 4.9
    bench.feed.tick()
    assert bench.feed.state().reopened == 0, "slow is not stuck"
    bench.clock.now += 0.2
    bench.feed.tick()
    assert "hangs" in bench.feed.state().why
    bench.clock.now += 1
    bench.feed.tick()
    wait_for(lambda: bench.feed.state().frames == 2)
    hang.set()
    wait_for(stuck.closed.is_set)
    assert bench.feed.state().frames == 2, "what comes late is nobody's"
    bench.lives[1].hangs.set()


def test_threads_that_hang_are_not_piled_up() -> None:
    hang = threading.Event()
    bench = Bench(SimSource([], hang))
    for _ in range(200):
        bench.feed.tick()
        bench.clock.now += 5.1
    assert bench.opened == 3, "no fourth thread goes into that driver"
    assert bench.feed.state().phase == "failed"
    hang.set()
    wait_for(lambda: all(each.ended for each in bench.feed._stuck))
    bench.clock.now += 50
    bench.feed.tick()
    wait_for(lambda: bench.opened == 4)


def test_a_source_at_its_end_is_not_a_failure() -> None:
    bench = Bench(SimSource([PICTURE, PICTURE]))
    bench.settle()
    bench.clock.now += 1000
    bench.feed.tick()
    state = bench.feed.state()
    assert (state.phase, state.frames, state.reopened, bench.opened) == ("finished", 2, 0, 1)


def test_empty_and_corrupt_frames_are_counted_and_get_no_number() -> None:
    wrong = [
        None, PICTURE[:0], PICTURE[:, :, 0], PICTURE.astype(np.float32), PICTURE[:, :, :2],
        PICTURE[:4], "no array",
    ]  # fmt: skip
    bench = Bench(SimSource([PICTURE, *wrong, PICTURE]))
    bench.settle()
    state = bench.feed.state()
    assert (state.frames, state.unreadable) == (2, len(wrong))
    last = bench.slots.take(0)
    assert last is not None
    assert last.seq == 1


def test_nothing_but_unreadable_frames_is_a_failure_and_no_busy_loop() -> None:
    bench = Bench(SimSource([None] * 10_000))
    bench.settle()
    state = bench.feed.state()
    assert (state.unreadable, state.reopened) == (100, 1)
    assert "unreadable" in state.why


def test_a_stuck_source_costs_the_others_nothing() -> None:
    hang, go = threading.Event(), threading.Event()
    slots = LatestFrames(["bad", "good"])

    def endless() -> Iterator[Any]:
        while not go.is_set():
            yield PICTURE

    feeds = Feeds([
        Feed("bad", lambda: SimSource([], hang), slots, 0.2, BUDGET),
        Feed("good", lambda: Iterated(endless, fps=200), slots, PATIENCE, BUDGET),
    ])  # fmt: skip
    feeds.start()
    feeds.opens.set()
    wait_for(lambda: feeds.state()[0].reopened >= 1 and feeds.state()[1].frames > 20)
    assert feeds.state()[1].reopened == 0
    feeds.stop()
    hang.set()
    go.set()
    feeds.join(PATIENCE)
    assert not feeds.is_alive()


def test_no_source_is_opened_before_frames_are_wanted() -> None:
    opened = threading.Event()

    def make() -> SimSource:
        opened.set()
        return SimSource([PICTURE])

    feeds = Feeds([Feed("cam", make, LatestFrames(["cam"]))])
    feeds.start()
    assert not opened.wait(0.2)
    feeds.opens.set()
    assert opened.wait(PATIENCE)
    feeds.stop()


def test_each_source_has_its_slot_and_its_turn() -> None:
    slots = LatestFrames(["a", "b"])
    for seq in range(5):
        slots.put(Captured(seq, PICTURE, 0.0, "a"))
    slots.put(Captured(0, PICTURE, 0.0, "b"))
    slots.put(Captured(1, PICTURE, 0.0, "b"))
    first = slots.take(0)
    slots.put(Captured(5, PICTURE, 0.0, "a"))
    second, third = slots.take(0), slots.take(0)
    assert [(f.source, f.seq) for f in (first, second, third) if f] == [
        ("a", 4),
        ("b", 1),
        ("a", 5),
    ]
    assert (slots.dropped_of("a"), slots.dropped_of("b"), slots.dropped) == (4, 1, 5)
    assert slots.take(0) is None


def test_a_stream_that_breaks_off_lets_go_and_says_so() -> None:
    capture = SimCapture(3, broken=frozenset({1}))
    images = Live("stream from cam", lambda: capture).images()
    found = [next(images) is None for _ in range(3)]
    assert found == [False, True, False]
    with pytest.raises(SourceError, match="stream from cam gives no frame"):
        next(images)
    assert capture.released


def test_a_camera_that_is_not_there() -> None:
    capture = SimCapture(0, opened=False)
    with pytest.raises(SourceError, match="cannot be opened"):
        next(Live("camera 0", lambda: capture).images())
    assert capture.released


def test_a_live_source_is_thinned_without_decoding_and_drained_all_the_same() -> None:
    clock, capture = Clock(), SimCapture(300)
    grab = capture.grab

    def at_thirty() -> bool:
        clock.now += 1 / 30
        return grab()

    capture.grab = at_thirty  # type: ignore[method-assign]
    with pytest.raises(SourceError):
        list(Live("camera 0", lambda: capture, 20.0, clock).images())
    assert capture.at == 300, "every frame is taken from the driver"
    assert 190 <= capture.decoded <= 202, "ten seconds at 20 a second"


def test_an_iterable_is_begun_again_and_its_arrays_are_copied() -> None:
    mine = PICTURE.copy()
    images = Iterated(lambda: [mine, "nothing"], loop=True).images()  # type: ignore[list-item]
    first = next(images)
    mine[:] = 9
    assert first is not None
    assert first.max() == 0
    assert next(images) is None
    assert next(images) is not None
    with pytest.raises(SourceError, match="empty"):
        next(Iterated(list, loop=True).images())


def test_a_folder_and_a_video_from_disk(tmp_path: Path) -> None:
    import cv2

    cv2.imwrite(str(tmp_path / "a.png"), PICTURE)
    (tmp_path / "b.png").write_bytes(b"no image")
    folder = opener(SourceSpec(kind="folder", path=tmp_path, loop=False))()
    assert [each is None for each in folder.images()] == [False, True]
    writer = cv2.VideoWriter(str(tmp_path / "v.mp4"), cv2.VideoWriter_fourcc(*"mp4v"), 10, (64, 64))
    for _ in range(5):
        writer.write(np.zeros((64, 64, 3), np.uint8))
    writer.release()
    video = opener(SourceSpec(kind="video", path=tmp_path / "v.mp4", loop=False))()
    assert (video.fps, len(list(video.images()))) == (10.0, 5)
    broken = opener(SourceSpec(kind="video", path=tmp_path / "b.png"))()
    with pytest.raises(SourceError, match="cannot be read"):
        next(broken.images())


def test_a_stream_nobody_serves_fails_in_time() -> None:
    import socket

    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        url = f"rtsp://user:secret@127.0.0.1:{silent.getsockname()[1]}/live"
        source = opener(SourceSpec(kind="rtsp", url=url, timeout_seconds=1))()
        started = time.monotonic()
        with pytest.raises(SourceError, match="127.0.0.1") as caught:
            next(source.images())
    assert time.monotonic() - started < 25, "it accepts and says nothing: opening has a timeout"
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ((), "no source"),
        (SourceSpec(kind="camera"), "no camera"),
        (SourceSpec(kind="rtsp", url="http://x/secret"), "no rtsp"),
        (
            (SourceSpec(kind="camera", camera=0), SourceSpec(kind="camera", camera=1)),
            "called 'main'",
        ),
    ],
)
def test_a_configuration_that_cannot_work(given: Any, said: str) -> None:
    with pytest.raises(InputError, match=said) as caught:
        sources_of(given, Path())
    assert "secret" not in str(caught.value)


def test_what_a_name_calls() -> None:
    assert called("tests.agent.test_sources:is_picture") is is_picture
    for wrong in ("no_such_module:x", "math:nothing", "math", ":"):
        with pytest.raises(InputError, match="cannot be called"):
            called(wrong)


def test_a_stream_is_read_and_opened_again_when_it_breaks_off_or_falls_silent() -> None:
    slots = LatestFrames(["gate"])
    with rtsp_camera() as camera:
        spec = SourceSpec(kind="rtsp", name="gate", url=camera.url, timeout_seconds=2)
        feeds = Feeds([Feed("gate", opener(spec), slots, 20, replace(BUDGET, first_seconds=0.1))])
        feeds.start()
        feeds.opens.set()

        def live() -> bool:
            state = feeds.state()[0]
            return state.phase == "live" and slots.take(0) is not None

        wait_for(live)
        camera.cut()
        wait_for(lambda: feeds.state()[0].reopened >= 1 and live())
        before, camera.silent = feeds.state()[0].reopened, True
        wait_for(lambda: feeds.state()[0].reopened > before)
        camera.silent = False
        wait_for(live)
        assert camera.sessions >= 3
        frame = None
        while frame is None:
            frame = slots.take(1)
        assert frame.image.shape == (64, 64, 3)
        assert 30 < frame.image.mean() < 250
        feeds.stop()
