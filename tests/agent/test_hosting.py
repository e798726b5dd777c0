"""An engine in a process of its own: whatever becomes of that process, every frame is answered."""

from __future__ import annotations

import os
import signal
import struct
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from kedge_agent import detector
from kedge_agent.blobs import BlobStore
from kedge_agent.detector import Detections, Detector
from kedge_agent.errors import EngineError, EngineGone, EngineKilled, EngineLate
from kedge_agent.frames import Captured, LatestFrames
from kedge_agent.hosting import child, host, wire
from kedge_agent.hosting.host import HostedEngine
from kedge_agent.hosting.process import Host
from kedge_agent.hosting.wire import Message, WireError
from kedge_agent.hotswap import Answer, HotEngine
from kedge_agent.pipeline import Loop
from kedge_agent.pulse import lost
from kedge_agent.runtimes.registry import RUNTIMES
from kedge_agent.sinks.callback import Callback
from kedge_agent.sinks.queued import Queued
from kedge_agent.telemetry import Telemetry
from kedge_shared.device_classes import RuntimeRange
from kedge_shared.manifest import InputSpec, OutputSpec
from tests.sim.camera import PICTURE
from tests.sim.engine import FRAME, SimDetector, slot_of
from tests.sim.gpu.fake_tensorrt import plan_of
from tests.sim.onnx_engine import SIZE, tiny_onnx
from tests.sim.rknn import rknn_file
from tests.sim.store import put
from tests.waiting import PATIENCE, wait_for


class Spec:
    runtime = RuntimeRange(name="onnxruntime", range=">=1")
    input = InputSpec(height=SIZE, width=SIZE)
    output = OutputSpec(head="yolo-v8", classes=("a", "b"))


#: Where the fake of TensorRT finds the lean runtime of a release.
LEAN = "/usr/lib/aarch64-linux-gnu/libnvinfer_lean.so.8.6.2"
BATCH = np.random.default_rng(0).random((1, 3, SIZE, SIZE), dtype=np.float32)


def bad(how: str, at: int, memory_mb: float = 0.0) -> HostedEngine:
    command = (sys.executable, "-m", "tests.sim.bad_host", how, str(at))
    host = Host(command)
    return HostedEngine("onnxruntime", {}, Spec(), threads=1, memory_mb=memory_mb, host=host)


def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """No frame is late and no engine hangs because the machine stalls."""
    monkeypatch.setattr(host, "_LEAST_LATE_SECONDS", PATIENCE)
    monkeypatch.setattr(host, "HANG_SECONDS", PATIENCE)


@contextmanager
def standing_still(engine: HostedEngine) -> Iterator[None]:
    """Its process does nothing meanwhile."""
    os.kill(engine.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(engine.pid, signal.SIGCONT)


class Served:
    """A hosted engine as a HotEngine has it."""

    def __init__(self, engine: HostedEngine) -> None:
        self.engine, self.slot = engine, slot_of("hosted")

    def detect(self, _: np.ndarray) -> Detections:
        return self._found(self.engine.infer(BATCH))

    def detect_in_time(self, _: np.ndarray) -> Detections:
        return self._found(self.engine.infer_in_time(BATCH))

    def _found(self, raw: np.ndarray) -> Detections:
        assert np.array_equal(raw.reshape(-1), BATCH.reshape(-1)[:12])
        return Detections(np.zeros((0, 6), np.float32), ("hosted",), 1.0, finite=True)

    def close(self) -> None:
        self.engine.close()


@pytest.fixture
def hosted() -> Iterator[Callable[..., Served]]:
    made: list[Served] = []

    def make(*given: Any, **more: Any) -> Served:
        made.append(Served(bad(*given, **more)))
        return made[-1]

    yield make
    for each in made:
        each.close()
        assert each.engine._process.poll() is not None, "no process is left behind"


@pytest.mark.parametrize("name", ["onnxruntime", "openvino"])
def test_it_answers_as_the_same_engine_does_in_the_process(tmp_path: Path, name: str) -> None:
    store = BlobStore(tmp_path)
    blobs: Any = {"engine": store.open_verified(put(store, tiny_onnx()))}
    here = RUNTIMES[name].load(blobs, None, threads=1)  # type: ignore[arg-type]
    there = HostedEngine(name, blobs, Spec(), threads=1, memory_mb=2000)
    found = [there.infer(BATCH * scale) for scale in (1.0, 0.5)]
    np.testing.assert_array_equal(found[0], here.infer(BATCH).copy())
    np.testing.assert_array_equal(found[1], here.infer(BATCH * np.float32(0.5)))
    process = Path(f"/proc/{there.pid}")
    own = Path("/proc/self/oom_score_adj").read_text()
    assert (process / "oom_score_adj").read_text() == own, "it goes no sooner than the loop"
    assert "NoNewPrivs:\t1" in (process / "status").read_text()
    if os.geteuid() == 0:
        nice = {
            os.getpriority(os.PRIO_PROCESS, int(each.name)) for each in (process / "task").iterdir()
        }
        assert nice == {os.getpriority(os.PRIO_PROCESS, 0)}, "it serves like the loop"
    there.close()
    assert not process.exists()


def test_what_does_not_load_says_why(tmp_path: Path) -> None:
    store = BlobStore(tmp_path)
    blobs: Any = {"engine": store.open_verified(put(store, b"no engine"))}
    with pytest.raises(EngineError, match="does not take the engine"):
        HostedEngine("onnxruntime", blobs, Spec(), threads=1)
    with pytest.raises(EngineError, match="not known"):
        HostedEngine("abacus", blobs, Spec(), threads=1)


@pytest.mark.parametrize(
    ("how", "said"),
    [("crash", "SIGSEGV"), ("exit", "status 3"), ("hang", "not loaded"), ("fail", "not this one")],
)
def test_a_process_that_dies_of_the_load(
    how: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(host, "LOAD_SECONDS", 1.0 if how == "hang" else PATIENCE)
    hot = HotEngine(SimDetector("old"))  # type: ignore[arg-type]
    with pytest.raises(EngineError, match=said):
        hot.load(lambda: Served(bad(how, 0)))  # type: ignore[arg-type,return-value]
    answer = hot.infer(FRAME)
    assert answer is not None
    assert answer.slot == slot_of("old")
    hot.close()


@pytest.mark.parametrize("at", [0, 1])
def test_a_process_that_the_kernel_kills_tells_that_memory_was_short(
    at: int, hosted: Callable[..., Served]
) -> None:
    """While it loads, and while preflight runs its first frames."""
    with pytest.raises(EngineKilled, match="memory was short"):
        hosted("killed", at).engine.infer(BATCH)


def test_a_process_that_kedge_itself_ended_was_not_killed_for_memory(
    hosted: Callable[..., Served], monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = hosted("hang", 1).engine
    monkeypatch.setattr(host, "HANG_SECONDS", 0.1)
    for _ in range(2):
        with pytest.raises(EngineGone, match="hangs") as told:
            engine.infer(BATCH)
        assert not isinstance(told.value, EngineKilled)


@pytest.mark.parametrize(
    ("how", "said"),
    [("crash", "SIGSEGV"), ("exit", "status 3"), ("fail", "not this one"), ("hang", "hangs"),
     ("bomb", "emory")],
)  # fmt: skip
def test_whatever_becomes_of_it_every_frame_is_answered_and_the_old_engine_stays(
    how: str, said: str, hosted: Callable[..., Served], monkeypatch: pytest.MonkeyPatch
) -> None:
    patient(monkeypatch)
    hot = HotEngine(SimDetector("old"))  # type: ignore[arg-type]
    new = hosted(how, 15, memory_mb=100.0)
    hot.load(lambda: new)  # type: ignore[arg-type,return-value]
    hot.swap()
    names: list[str] = []

    def fell_back() -> str:
        answer = hot.infer(FRAME)
        assert answer is not None
        names.append(answer.slot.release)
        if how == "hang" and len(names) == 14:
            monkeypatch.setattr(host, "_LEAST_LATE_SECONDS", 0.02)
        if hot.late > 3:
            monkeypatch.setattr(host, "HANG_SECONDS", 0.1)
        return hot.fell_back

    wait_for(fell_back)
    assert said in hot.fell_back
    assert names[:14] == ["hosted"] * 14
    assert set(names[14:]) == {"old"}
    assert hot.late > 3 or how != "hang", "a late frame waits for nobody"
    wait_for(lambda: new.engine._process.poll() is not None)
    hot.close()


def test_one_late_frame_is_the_older_engines_and_no_reason_to_go_back(
    hosted: Callable[..., Served], monkeypatch: pytest.MonkeyPatch
) -> None:
    patient(monkeypatch)
    hot = HotEngine(SimDetector("old"))  # type: ignore[arg-type]
    new = hosted("none", 0)
    hot.load(lambda: new)  # type: ignore[arg-type,return-value]
    hot.swap()

    def answer() -> Answer:
        found = hot.infer(FRAME)
        assert found is not None
        return found

    assert [answer().slot.release for _ in range(14)] == ["hosted"] * 14
    with standing_still(new.engine), monkeypatch.context() as usual:
        usual.setattr(host, "_LEAST_LATE_SECONDS", 0.02)
        late = [answer() for _ in range(5)]
    assert {(each.slot.release, each.instead) for each in late} == {("old", True)}
    assert not any(each.new for each in late), "no evidence of the new engine"
    # The answer to the frame that was given up may still be on its way.
    wait_for(lambda: answer().slot.release == "hosted")
    assert hot.fell_back == ""
    assert hot.late >= len(late)
    hot.close()


def test_without_another_engine_a_late_frame_is_waited_for(hosted: Callable[..., Served]) -> None:
    hot = HotEngine(hosted("late", 15))  # type: ignore[arg-type]
    names = [answer.slot.release for _ in range(30) if (answer := hot.infer(FRAME)) is not None]
    assert names == ["hosted"] * 30
    hot.close()


def test_a_late_answer_is_not_taken_for_the_next_frames(
    hosted: Callable[..., Served], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(host, "HANG_SECONDS", PATIENCE)
    engine = hosted("none", 0).engine
    for _ in range(11):
        engine.infer(BATCH)
    with standing_still(engine):
        with pytest.raises(EngineLate):
            engine.infer_in_time(BATCH)
        with pytest.raises(EngineLate):
            engine.infer_in_time(BATCH * 2)
    found = engine.infer(BATCH * 3)
    assert np.array_equal(found.reshape(-1), (BATCH * 3).reshape(-1)[:12])


def test_in_a_whole_loop_a_crash_costs_nothing(hosted: Callable[..., Served]) -> None:
    slots, got = LatestFrames(), []
    sink = Queued("test", lambda: Callback(got.append), 10_000)
    hot = HotEngine(SimDetector("old"))  # type: ignore[arg-type]
    loop = Loop(slots, hot, [sink], Telemetry())
    loop.start()
    given, halt = 0, threading.Event()

    def camera() -> None:
        nonlocal given
        while not halt.wait(0.01):
            slots.put(Captured(given, PICTURE, 0.0))
            given += 1

    feeding = threading.Thread(target=camera)
    feeding.start()
    hot.load(lambda: hosted("crash", 30))  # type: ignore[arg-type,return-value]
    hot.swap()
    wait_for(lambda: hot.fell_back)
    before = len(got)
    wait_for(lambda: len(got) > before + 5)
    halt.set()
    feeding.join()
    wait_for(lambda: len(got) == given - slots.dropped)
    loop.stop()
    sink.close()
    assert loop.pulse().errors_in_a_row == 0
    assert {each.slot.release for each in got} == {"old", "hosted"}


def test_where_no_other_engine_is_the_runner_starts_again_at_once(
    hosted: Callable[..., Served],
) -> None:
    slots = LatestFrames()
    new = hosted("hang", 10_000)
    loop = Loop(slots, HotEngine(new), [], Telemetry())  # type: ignore[arg-type]
    loop.start()
    slots.put(Captured(0, PICTURE, 0.0))
    os.kill(new.engine.pid, signal.SIGKILL)  # as the kernel does when memory is short
    new.engine._process.wait()
    for seq in range(1, 4):
        slots.put(Captured(seq, PICTURE, 0.0))
        time.sleep(0.05)
    wait_for(lambda: lost(loop.pulse()))
    assert lost(loop.pulse()) == "the engine's process has ended"
    loop.stop()
    with pytest.raises(EngineGone, match="memory was short"):
        new.engine.infer(BATCH)


def test_a_detector_is_punctual_only_where_its_engine_is() -> None:
    class Plain:
        def infer(self, batch: Any) -> Any:
            return np.zeros((1, 6, 10), np.float32)

        def close(self) -> None: ...

    found = Detector(Plain(), Spec(), slot_of("plain")).detect_in_time(FRAME)  # type: ignore[arg-type]
    assert len(found.rows) == 0


def test_the_words_of_the_wire_are_these() -> None:
    said = wire.pack(Message(wire.INFER, 7, wire.pack_shape((1, 3))))
    assert said == (
        b"KDGE\x02\x00\x03\x00\x07\0\0\0\0\0\0\0\x02\0\0\0\x01\0\0\0\0\0\0\0\x03\0\0\0\0\0\0\0"
    )
    assert wire.unpack(said) == Message(3, 7, said[16:])
    assert wire.unpack_shape(said[16:], 12) == (1, 3)
    assert wire.unpack_failure(wire.pack_failure(wire.MEMORY, "why")) == (2, "why")
    for wrong in (b"", b"KDGE", b"KDGF" + said[4:], b"KDGE\x01\x00" + said[6:]):
        with pytest.raises(WireError):
            wire.unpack(wrong)
    for body, limit in ((said[16:], 11), (said[16:-1], 99), (struct.pack("<I", 9), 99), (b"", 99)):
        with pytest.raises(WireError):
            wire.unpack_shape(body, limit)


def test_the_memory_that_is_shared_cannot_be_cut_off(hosted: Callable[..., Served]) -> None:
    fd = host._shared_memory(4096)
    with pytest.raises(PermissionError):
        os.ftruncate(fd, 0)
    os.close(fd)


def test_who_asks_for_a_process_of_its_own_gets_one(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[tuple[Any, ...]] = []
    monkeypatch.setattr(detector, "HostedEngine", lambda *given, **_: made.append(given))
    runtime: Any = RUNTIMES["onnxruntime"]
    spec = Spec()
    detector._load(runtime, {}, spec, 1, "own-process")
    assert made == [("onnxruntime", {}, spec)]


def test_rknns_process_is_told_how_its_outputs_are_read(tmp_path: Path) -> None:
    """They are decoded there: an NPU gives the last convolutions' numbers."""
    store = BlobStore(tmp_path)
    blobs: Any = {"engine": store.open_verified(put(store, rknn_file()))}
    many = OutputSpec(head="yolo-v8", classes=tuple(f"class {at}" * 20 for at in range(9_000)))
    for read in (Spec.output, many):
        spec: Any = SimpleNamespace(input=InputSpec(height=64, width=64), output=read)
        command = (sys.executable, "-m", "tests.sim.board_host", "rknn", str(len(read.classes)))
        engine = HostedEngine("rknn", blobs, spec, threads=1, host=Host(command))
        found = engine.infer(np.zeros((1, 3, 64, 64), np.float32))
        assert found.shape == (1, 4 + len(read.classes), 84)
        engine.close()


def test_a_plan_lives_in_a_process_of_its_own_where_the_bindings_are_the_agents(
    tmp_path: Path,
) -> None:
    store = BlobStore(tmp_path)
    spec: Any = SimpleNamespace(input=InputSpec(height=32, width=32), output=Spec.output)
    batch = np.random.default_rng(1).random((1, 3, 32, 32), dtype=np.float32)
    for plan, lean in ((plan_of(), ""), (plan_of(version="8.6.2"), LEAN)):
        blobs: Any = {"engine": store.open_verified(put(store, plan))}
        command = (sys.executable, "-m", "tests.sim.board_host", "tensorrt", "10.3.0.26")
        engine = HostedEngine("tensorrt", blobs, spec, threads=1, lean=lean, host=Host(command))
        assert np.array_equal(engine.infer(batch).reshape(-1), batch.reshape(-1)[:96])
        engine.close()


@pytest.mark.parametrize(
    ("error", "code"),
    [(EngineGone("x"), wire.LOST), (EngineError("x"), wire.ENGINE), (MemoryError(), wire.MEMORY)],
)
def test_the_runner_hears_that_no_later_frame_can_be_answered(error: Any, code: int) -> None:
    assert child._failure(error)[:2] == struct.pack("<H", code)
