"""The runner asked to load: the memory of the board decides which rung is taken."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from kedge_agent.admission import Isolation
from kedge_agent.blobs import BlobStore
from kedge_agent.control import Control
from kedge_agent.detector import load_detector
from kedge_agent.errors import EngineError, EngineKilled, Misfit
from kedge_agent.evidence.summary import Evidence
from kedge_agent.frames import Captured, LatestFrames
from kedge_agent.hotswap import HotEngine
from kedge_agent.local_protocol import (
    SLOTS_FILE,
    Done,
    Failed,
    LoadCandidate,
    RollBack,
    Slot,
    Slots,
    StartShadow,
    Swap,
)
from kedge_agent.pipeline import Loop
from kedge_agent.sources.feed import Feeds
from kedge_agent.telemetry import Telemetry
from kedge_shared import wire
from tests.shared import samples
from tests.sim.store import put
from tests.waiting import PATIENCE, wait_for

MB = 2**20
PICTURE = np.zeros((160, 160, 3), np.uint8)


@dataclass
class SimEngine:
    runtime: SimRuntime

    def infer(self, batch: Any) -> Any:
        return np.zeros((1, 6, 10), np.float32)

    def close(self) -> None:
        self.runtime.loaded -= 1


@dataclass
class SimRuntime:
    """Every engine takes 100 MiB; knows how many are loaded.

    Attributes:
        fails: It takes no more engines.
    """

    name: str = "onnxruntime"
    isolation: Isolation = "in-process"
    on_gpu: bool = False
    loaded: int = 0
    most: int = 0
    fails: bool = False

    def estimate(self, _: Any) -> int:
        return 100 * MB

    def load(self, blobs: Mapping[str, Any], spec: Any, *, threads: int) -> SimEngine:
        if self.fails:
            raise MemoryError("no room")
        self.loaded += 1
        self.most = max(self.most, self.loaded)
        return SimEngine(self)


class Bench:
    """A runner's parts around a runtime that is none."""

    def __init__(self, home: Path, *, allow_gap: bool) -> None:
        self.home, self.store, self.runtime = home, BlobStore(home / "blobs"), SimRuntime()
        self.frames, self.given = LatestFrames(), 0
        runtimes: Any = {"onnxruntime": self.runtime}
        self.old, self.new = (self.slot(each, allow_gap=allow_gap) for each in ("1.0", "1.1"))
        self.hot = HotEngine(load_detector(self.old, self.store, runtimes, 1))
        telemetry = Telemetry()
        self.loop = Loop(self.frames, self.hot, [], telemetry)
        self.free = 1000.0
        self.control = Control(
            hot=self.hot, loop=self.loop, telemetry=telemetry, frames=self.frames,
            sources=Feeds([]), store=self.store, runtimes=runtimes, threads=1, state_dir=home,
            available_mb=lambda: self.free,
        )  # fmt: skip
        self.loop.start()

    def slot(self, release: str, *, allow_gap: bool) -> Slot:
        encoded, body = cv2.imencode(".jpg", PICTURE)
        assert encoded
        frame = replace(samples.policy().golden[0], sha256=put(self.store, body.tobytes()))
        policy = replace(samples.policy(), golden=(frame,), allow_gap=allow_gap)
        engine = release.encode()
        manifest = samples.manifest()
        file = replace(manifest.files[0], sha256=put(self.store, engine), length=len(engine))
        manifest = replace(manifest, release=release, files=(file, manifest.files[1]))
        return Slot(
            release=release, manifest=put(self.store, wire.encode_pretty(manifest)),
            policy=put(self.store, wire.encode_pretty(policy)), engine=file.sha256,
        )  # fmt: skip

    def camera(self) -> None:
        """Frames for those who wait for the first after a switch."""
        import threading

        self.halt = threading.Event()

        def give() -> None:
            while not self.halt.wait(0.005):
                self.frames.put(Captured(self.given, PICTURE, 0.0))
                self.given += 1

        self._thread = threading.Thread(target=give)
        self._thread.start()

    def close(self) -> None:
        self.halt.set()
        self._thread.join()
        self.loop.stop()
        self.loop.join(PATIENCE)
        self.control._stop_shadow()
        self.hot.close()

    def serves(self) -> str:
        slot = self.hot.slot("active")
        return slot.release if slot else ""


@pytest.fixture(params=[True])
def bench(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Bench]:
    found = Bench(tmp_path, allow_gap=request.param)
    found.camera()
    yield found
    found.close()


def test_with_room_both_are_loaded_and_no_frame_waits(bench: Bench) -> None:
    answer = bench.control.handle(LoadCandidate(bench.new))
    assert isinstance(answer, Done), answer
    assert (answer.state.candidate, answer.state.deferred) == (bench.new, False)
    assert bench.runtime.loaded == 2
    assert isinstance(bench.control.handle(Swap()), Done)
    assert bench.serves() == "1.1"
    assert bench.hot.gap_ms == 0


def test_after_a_swap_it_tells_how_long_the_older_engine_took_in_service(bench: Bench) -> None:
    wait_for(lambda: bench.control.telemetry.recent_ms() > 0)
    assert isinstance(bench.control.handle(LoadCandidate(bench.new)), Done)
    assert isinstance(bench.control.handle(StartShadow(share=0.1)), Done)
    before = bench.control.state().evidence
    assert before is not None
    assert before.live_before_ms == 0, "the older one serves"
    # The loop's own frames are over in no time: what is told is these.
    bench.control.telemetry.recent_ms = lambda: 12.5  # type: ignore[method-assign]
    assert isinstance(bench.control.handle(Swap()), Done)
    after = bench.control.state().evidence
    assert after is not None
    assert after.live_before_ms == 12.5


@pytest.mark.parametrize("asks", ["runtime", "board"])
def test_in_a_process_of_its_own_where_the_runtime_or_the_board_asks_for_it(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, asks: str
) -> None:
    hosted: list[str] = []

    def host(name: str, blobs: Any, spec: Any, **_: Any) -> SimEngine:
        hosted.append(name)
        bench.runtime.loaded += 1
        return SimEngine(bench.runtime)

    monkeypatch.setattr("kedge_agent.detector.HostedEngine", host)
    if asks == "runtime":
        bench.runtime.isolation = "own-process"
    else:
        bench.control.isolation = "own-process"
    bench.free = 220.0  # enough for the engine, not for a process around it: over the gap
    answer = bench.control.handle(LoadCandidate(bench.new))
    assert isinstance(answer, Done), answer
    assert answer.state.deferred
    bench.free = 1000.0
    answer = bench.control.handle(LoadCandidate(bench.new))
    assert isinstance(answer, Done), answer
    assert (hosted, answer.state.deferred) == (["onnxruntime"], False)
    assert isinstance(bench.control.handle(Swap()), Done)
    assert bench.serves() == "1.1"


def test_without_room_the_old_one_goes_first_and_the_gap_is_counted(bench: Bench) -> None:
    bench.free = 120.0  # 164 are wanted; the active engine gives back 50
    answer = bench.control.handle(LoadCandidate(bench.new))
    assert isinstance(answer, Done), answer
    assert answer.state.deferred
    assert bench.runtime.loaded == 1, "until the swap nothing changes"
    answer = bench.control.handle(Swap())
    assert isinstance(answer, Done), answer
    assert (bench.serves(), bench.runtime.most, answer.state.deferred) == ("1.1", 1, True)
    assert bench.hot.gap_ms > 0
    # The report tells of it as the sinks saw it: from the old engine's last answer on.
    wait_for(lambda: bench.control.state().swap_gap_ms > 0)
    assert bench.loop.shadow is None, "there is nothing to shadow with"
    wait_for(lambda: (bench.control.state().evidence or Evidence()).frames > 3)
    alone = bench.control.state().evidence
    assert alone is not None
    assert (alone.alone, alone.answered, alone.errors) == (True, 0, 0)
    assert alone.new_p95_ms > 0, "its frame times are judged all the same"
    assert isinstance(bench.control.handle(RollBack()), Done)
    assert (bench.serves(), bench.runtime.most) == ("1.0", 1)


def test_a_load_whose_process_the_kernel_ended_is_refused_for_memory(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: Any, **__: Any) -> None:
        raise EngineKilled("engine's process was killed (SIGKILL): memory was short")

    monkeypatch.setattr(SimRuntime, "load", killed)
    answer = bench.control.handle(LoadCandidate(bench.new))
    assert isinstance(answer, Failed)
    assert answer.code == "memory"
    assert bench.serves() == "1.0"


@pytest.mark.parametrize("bench", [False], indirect=True)
def test_without_the_policys_leave_it_is_refused_for_memory(bench: Bench) -> None:
    bench.free = 120.0
    answer = bench.control.handle(LoadCandidate(bench.new))
    assert isinstance(answer, Failed)
    assert answer.code == "memory"
    assert "policy allows no gap" in answer.reason
    assert (bench.serves(), bench.hot.slot("candidate")) == ("1.0", None)


@pytest.mark.parametrize("bench", [False], indirect=True)
def test_going_back_is_worth_a_gap_whatever_the_policy_says(bench: Bench) -> None:
    bench.free = 120.0
    (bench.home / SLOTS_FILE).write_bytes(wire.encode(Slots(active=bench.new)))
    assert isinstance(bench.control.handle(LoadCandidate(bench.new)), Done)


def test_what_does_not_load_in_the_gap_leaves_the_old_engine(bench: Bench) -> None:
    bench.free = 120.0
    bench.control.handle(LoadCandidate(bench.new))
    (bench.store.root / bench.new.engine).unlink()
    answer = bench.control.handle(Swap())
    assert isinstance(answer, Failed)
    assert bench.serves() == "1.0"
    before = bench.given
    wait_for(lambda: bench.given > before + 3)
    assert bench.loop.pulse().errors_in_a_row == 0


def test_no_room_at_all(bench: Bench) -> None:
    bench.free = 100.0
    answer = bench.control.handle(LoadCandidate(bench.new))
    assert isinstance(answer, Failed)
    assert "also without the active one" in answer.reason


def test_what_the_board_is_no_more_is_told_from_what_kills_its_process(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between preflight and here another CUDA was installed; the engine is none the worse."""
    for error, code in ((Misfit("plan of CUDA 12, the board's is 13"), "misfit"),
                        (EngineError("no kernel image"), "crash")):  # fmt: skip
        monkeypatch.setattr(bench.runtime, "load", raising(error))
        answer = bench.control.handle(LoadCandidate(bench.new))
        assert isinstance(answer, Failed)
        assert (answer.code, answer.reason) == (code, str(error))


def raising(error: Exception) -> Callable[..., SimEngine]:
    def load(*_: Any, **__: Any) -> SimEngine:
        raise error

    return load
