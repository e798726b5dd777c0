"""A plan that the board builds: at which pace, how it is kept, and what is refused."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import numpy as np
import pytest

from kedge_agent import detector, facts
from kedge_agent.blobs import BlobStore
from kedge_agent.building import maker
from kedge_agent.building.forms import loadable
from kedge_agent.building.maker import Held, Job, NotBuilt
from kedge_agent.building.pacing import Pace
from kedge_agent.building.step import Building
from kedge_agent.errors import EngineError, RunnerGone
from kedge_agent.fetching import Unfit
from kedge_agent.gpu import board_python, plan_maker
from kedge_agent.gpu.engine_host import Cuda
from kedge_agent.housekeeping import Housekeeping
from kedge_agent.local_protocol import Slot
from kedge_agent.patience import BuildingSettings
from kedge_agent.runtimes.registry import takes_mb
from kedge_agent.runtimes.tensorrt import TensorRt
from kedge_agent.state import State
from kedge_shared.errors import TrustError
from kedge_shared.ids import sha256_hex
from kedge_shared.phases import Phase
from kedge_shared.plans import OnDevice
from kedge_shared.protocol import DeviceFacts
from tests.agent.test_engine_host import pythons
from tests.sim.gpu import fake_tensorrt, old_maker
from tests.sim.gpu.cudart import FakeCudart
from tests.sim.gpu.fake_tensorrt import plan_of
from tests.sim.plans import BOARD, CACHE, NETWORK, ONNX, VERSION, manifest, ref, slot_of, store_in
from tests.sim.store import put


@pytest.fixture
def state_dir(tmp_path: Path) -> Path:
    return tmp_path / "state"


@pytest.fixture
def store(state_dir: Path) -> BlobStore:
    return store_in(state_dir)


# -- the pace ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("usual", "looks", "stands"),
    [
        (10.0, [10, 14.9, 15.0], [False, False, False]),
        (10.0, [15.1, 14.9, 14.4, 15.1], [True, True, False, True]),
        (0.0, [100.0], [False]),  # nothing serves
        (10.0, [20.0, 0.0], [True, False]),  # it served no more
    ],
)
def test_a_build_stands_still_while_the_loop_is_too_slow(
    usual: float, looks: list[float], stands: list[bool]
) -> None:
    pace, found = Pace(usual, 1.5), []
    for each in looks:
        pace = pace.after(each)
        found.append(pace.stands)
    assert found == stands


# -- building ------------------------------------------------------------------------------------


def command(version: str = VERSION, python: str = sys.executable) -> tuple[str, ...]:
    return (python, "-I", str(old_maker.__file__), version, str(plan_maker.__file__))


def job(store: BlobStore, onnx: bytes = ONNX, seconds: float = 60.0, **more: Any) -> Job:
    blob = store.open_verified(put(store, onnx))
    how = more.pop("command", None)
    wanted = more.pop("wanted", OnDevice())
    return Job(how or command(**more), blob, None, wanted, seconds)


async def no_loop() -> float:
    return 0.0


def make(
    wanted: Job,
    pace: Pace = Pace(0.0, 1.5),
    look: Any = no_loop,
    shut: Callable[[], str] = lambda: "",
) -> tuple[bytes, maker.Told]:
    return asyncio.run(maker.make(wanted, pace, look, shut))


@pytest.mark.parametrize("python", pythons())
@pytest.mark.parametrize("version", ["8.2.1.9", "10.3.0.26", "11.4.0.7"])
def test_every_python_builds_and_the_decode_stays_float(
    store: BlobStore, version: str, python: str
) -> None:
    data, told = make(job(store, version=version, python=python))
    built = json.loads(data[64:])["built"]
    assert told.version == version
    assert told.memory_bytes == 1 << 20
    if version.startswith("11"):
        assert (built["flags"], built["network"], built["float"]) == ([], 2, [])
        assert told.flags == ("strongly-typed",)
    else:
        assert built["flags"] == ["FP16", "INT8", "OBEY_PRECISION_CONSTRAINTS"]
        assert built["float"] == ["exp", "mul"], (
            "the decode, and neither constants nor convolutions"
        )
        assert built["network"] == 1
        assert told.flags == ("float16", "int8", "decode-float32")


@pytest.mark.parametrize("python", pythons())
@pytest.mark.parametrize(
    ("wanted", "flags", "told"),
    [
        (OnDevice(int8=False), ["FP16", "OBEY_PRECISION_CONSTRAINTS"],
         ("float16", "decode-float32")),
        (OnDevice(int8=False, half=False), [], ("float32",)),
    ],
)  # fmt: skip
def test_a_nano_builds_fp16_of_a_float_onnx_and_fp32_where_fp16_lost_too_much(
    store: BlobStore, wanted: OnDevice, flags: list[str], told: tuple[str, ...], python: str
) -> None:
    data, said = make(job(store, version="8.2.1.9", python=python, wanted=wanted))
    built = json.loads(data[64:])["built"]
    assert (built["flags"], said.flags) == (flags, told)
    assert built["float"] == (["exp", "mul"] if flags else [])
    assert built["space"] == 1 << 30, "8.2 has no memory pools yet"


def test_the_decode_begins_behind_the_last_convolutions_and_holds_dfls(store: BlobStore) -> None:
    """DFL's convolution weighs a Softmax: in FP16 its distances would have steps of 1/128."""
    network = {
        "layers": [
            ["box", "CONVOLUTION", ["images"], ["a"]], ["split", "SHUFFLE", ["a"], ["b"]],
            ["soft", "SOFTMAX", ["b"], ["c"]], ["turn", "SHUFFLE", ["c"], ["d"]],
            ["dfl", "CONVOLUTION", ["d"], ["e"]], ["class", "CONVOLUTION", ["images"], ["f"]],
            ["score", "ACTIVATION", ["f"], ["g"]], ["all", "CONCATENATION", ["e", "g"], ["out"]],
        ],
        "outputs": ["out"],
    }  # fmt: skip
    data, _ = make(job(store, json.dumps(network).encode(), version="8.2.1.9"))
    kept = json.loads(data[64:])["built"]["float"]
    assert kept == sorted(["split", "soft", "turn", "dfl", "score", "all"])


@pytest.mark.parametrize(
    ("bad", "said", "harm"),
    [
        ("operator", "No importer registered for op: Frobnicate", True),
        ("build", "could not find any implementation", True),
        ("crash", "SIGSEGV", False),
    ],
)
def test_what_cannot_be_built_says_why(store: BlobStore, bad: str, said: str, harm: bool) -> None:
    with pytest.raises(NotBuilt, match=said) as told:
        make(job(store, json.dumps(NETWORK | {"bad": bad}).encode()))
    assert told.value.harm is harm
    plugin = NETWORK | {"layers": [["nms", "PLUGIN_V2", ["images"], ["output0"]]]}
    with pytest.raises(NotBuilt, match="plugin for nms"):
        make(job(store, json.dumps(plugin).encode()))


def test_a_build_that_does_not_end_is_ended(store: BlobStore) -> None:
    endless = json.dumps(NETWORK | {"bad": "endless"}).encode()
    with pytest.raises(NotBuilt, match="not done in 2 s") as told:
        make(job(store, endless, seconds=2.0))
    assert not told.value.harm


@pytest.mark.parametrize("stands", [False, True])
def test_a_build_is_ended_when_its_time_is_over_even_while_it_stands_still(
    store: BlobStore, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, stands: bool
) -> None:
    monkeypatch.setattr(maker, "_LOOK_SECONDS", 0.05)
    number, script = tmp_path / "pid", tmp_path / "sleep.py"
    script.write_text(
        f"import os, time\nopen({str(number)!r}, 'w').write(str(os.getpid()))\ntime.sleep(600)\n"
    )
    looks: list[float] = []

    async def look() -> float:
        """The loop is slow only once the build is known: stopped before, it would tell nothing."""
        if not (number.exists() and number.read_text()):
            return 10.0
        looks.append(30.0 if stands else 10.0)
        return looks[-1]

    def shut() -> str:
        return "waits for the maintenance window at Sat 03:00 UTC" if len(looks) > 2 else ""

    with pytest.raises(
        Held, match=r"ended after \d+ s and begins anew: waits for the maintenance window at Sat"
    ):
        make(job(store, command=(sys.executable, str(script))), Pace(10.0, 1.5), look, shut)
    with pytest.raises(ProcessLookupError):
        os.kill(int(number.read_text()), 0)


def test_a_build_is_stopped_while_the_loop_is_slow_and_goes_on_after(
    store: BlobStore, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A process that counts, looked at twice while the loop is slow: it must not have counted."""
    monkeypatch.setattr(maker, "_LOOK_SECONDS", 0.3)
    counts, script = tmp_path / "counts", tmp_path / "count.py"
    script.write_text(
        "import sys, time, json, os\n"
        "job = json.loads(sys.stdin.read())\n"
        f"out = open({str(counts)!r}, 'a')\n"
        "while True:\n"
        "    out.write('x'); out.flush(); time.sleep(0.01)\n"
        f"    if os.path.exists({str(tmp_path / 'end')!r}): break\n"
        "os.write(job['plan'], b'plan'); print(json.dumps({'ok': True}))\n"
    )
    seen: list[int] = []
    told = iter([10.0, 30.0, 30.0, 30.0, 10.0, 10.0, 10.0])

    async def look() -> float:
        seen.append(counts.stat().st_size if counts.exists() else 0)
        ms = next(told, 10.0)
        if len(seen) >= 7 and seen[-1] > seen[3]:
            (tmp_path / "end").touch()
        return ms

    data, _ = make(job(store, command=(sys.executable, str(script))), Pace(10.0, 1.5), look)
    assert data == b"plan"
    assert seen[2] == seen[3] == seen[4], "it stood still from the look that stopped it"
    assert seen[-1] > seen[4], "and went on"


@dataclass
class Runner:
    ms: float = 0.0

    async def state(self) -> Any:
        if not self.ms:
            raise RunnerGone("no loop")
        return SimpleNamespace(frame_ms=self.ms)


@dataclass
class Board:
    """As much of a board as a build needs."""

    store: BlobStore
    state_dir: Path
    facts: DeviceFacts = BOARD
    room: list[int] = field(default_factory=list)
    runner: Runner = field(default_factory=Runner)
    state: State = field(default_factory=State)

    @property
    def settings(self) -> Any:
        return SimpleNamespace(state_dir=self.state_dir, building=BuildingSettings(seconds=60))

    @property
    def journal(self) -> Any:
        return SimpleNamespace(state=self.state)

    def held(self, phase: Phase) -> str:
        return ""

    def make_room(self, coming: dict[str, int]) -> None:
        self.room.append(sum(coming.values()))

    def log(self, line: str) -> None: ...


@pytest.fixture
def board(store: BlobStore, state_dir: Path) -> Board:
    return Board(store, state_dir)


def build(board: Any, slot: Slot, version: str = VERSION) -> Slot:
    how: Callable[[str], tuple[str, ...] | None] = lambda _: command(version)  # noqa: E731
    return asyncio.run(Building(board, how).built(slot, manifest()))


def test_what_was_built_is_sealed_loaded_and_kept(
    board: Board, store: BlobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    slot = slot_of(store, manifest())
    assert slot.form is not None
    ready = build(board, slot)
    assert ready.form is not None
    assert ready.form.seal is not None
    assert board.room == [sum(store.path(each).stat().st_size
                              for each in (ready.form.file, ready.form.seal))]  # fmt: skip
    wanted = loadable(manifest(), ready.form, store)
    assert wanted.plan is not None
    assert (wanted.plan.sm, wanted.plan.cuda, wanted.plan.onnx) == ((87,), 12, sha256_hex(ONNX))
    assert wanted.plan.timing_cache == sha256_hex(CACHE)
    assert (
        json.loads(store.path(ready.form.file).read_bytes()[64:])["built"]["cache"]
        == "timings of this class"
    )
    # What the engine said it takes is what is asked for at the admission.
    assert takes_mb(wanted) == pytest.approx(1 + wanted.files[0].length / 2**20)

    monkeypatch.setattr(facts, "gather", lambda installed: replace(BOARD, runtimes=installed))
    module = fake_tensorrt.module(VERSION, FakeCudart())
    monkeypatch.setitem(sys.modules, "tensorrt", module)
    runtimes: Any = {"tensorrt": TensorRt("tensorrt", "tensorrt", lambda: Cuda(module.cudart))}
    loaded = detector.load_detector(ready, store, runtimes, 1)
    assert loaded.gpu_memory_mb > 1
    assert loaded.detect(np.zeros((40, 40, 3), np.uint8)).finite
    loaded.close()

    monkeypatch.setattr(
        facts, "gather", lambda installed: replace(BOARD, runtimes={"tensorrt": "10.7.0.23"})
    )
    module.Runtime.deserialize_cuda_engine = lambda *_: pytest.fail("it was deserialized")
    with pytest.raises(EngineError, match=r"board has 10\.7\.0\.23"):
        detector.load_detector(ready, store, runtimes, 1)

    Housekeeping(store, store.root / "partial", None, 0).collect(State(active=ready))
    kept = {each.name for each in store.root.iterdir()}
    assert {ready.form.file, ready.form.seal, ready.engine} <= kept
    assert sha256_hex(plan_of()) not in kept

    altered = bytearray(store.path(ready.form.file).read_bytes())
    altered[-2] ^= 1
    store.path(ready.form.file).write_bytes(altered)
    with pytest.raises(TrustError, match="altered"):
        detector.load_detector(ready, store, runtimes, 1)


def test_it_is_built_once(board: Board, store: BlobStore) -> None:
    slot = slot_of(store, manifest())
    ready = build(board, slot)
    assert build(board, ready) is ready, "after a power cut"
    board.state = State(previous=ready)
    again = build(board, slot, version="no version at all")
    assert again.form == ready.form, "going back takes no build"


def test_a_plan_that_fits_no_longer_is_built_anew(board: Board, store: BlobStore) -> None:
    slot = slot_of(store, manifest())
    ready = build(board, slot)
    assert ready.form is not None
    board.state = State(active=ready)
    board.facts = replace(BOARD, runtimes={"tensorrt": "10.7.0.23"})
    with pytest.raises(Unfit):
        build(board, slot, version="no version at all")
    board.facts = BOARD
    put(store, b"no seal")
    forged = msgspec.structs.replace(ready.form, seal=sha256_hex(b"no seal"))
    board.state = State(active=msgspec.structs.replace(ready, form=forged))
    with pytest.raises(Unfit):
        build(board, slot, version="no version at all")


def test_a_model_that_cannot_be_built_is_harm_and_a_board_that_cannot_is_none(
    board: Board, store: BlobStore
) -> None:
    bad = json.dumps(NETWORK | {"bad": "operator"}).encode()
    files = (ref("engine", bad, "model.onnx"), *manifest().files[1:])
    put(store, bad)
    with pytest.raises(Unfit) as told:
        build(board, slot_of(store, manifest(files=files)))
    assert (told.value.verdict.code, told.value.verdict.cause) == ("misfit", "harm")
    with pytest.raises(Unfit) as told:
        asyncio.run(Building(board, lambda _: ("/nowhere/python",)).built(  # type: ignore[arg-type]
            slot_of(store, manifest()), manifest()))  # fmt: skip
    assert told.value.verdict.cause == "environment"


def test_the_boards_own_python_builds_where_it_brings_the_bindings(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert board_python.maker("onnxruntime") is None
    monkeypatch.setattr(board_python, "find", lambda: Path("/usr/bin/python3.8"))
    found = board_python.maker("tensorrt")
    assert found is not None
    assert found[-4:] == ("/usr/bin/python3.8", "-I", str(plan_maker.__file__), "tensorrt")
    rtx = board_python.maker("tensorrt-rtx")
    assert rtx is not None
    assert rtx[-4:] == (sys.executable, "-I", str(plan_maker.__file__), "tensorrt_rtx")
    assert os.access(plan_maker.__file__, os.R_OK)
