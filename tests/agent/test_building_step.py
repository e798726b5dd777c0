"""A board that builds its plan: what is kept and sealed, built anew, or refused."""

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
from kedge_agent.building.forms import loadable
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
from tests.agent.test_building import command
from tests.sim.gpu import fake_tensorrt
from tests.sim.gpu.cudart import FakeCudart
from tests.sim.gpu.fake_tensorrt import plan_of
from tests.sim.plans import BOARD, CACHE, NETWORK, ONNX, VERSION, manifest, ref, slot_of, store_in
from tests.sim.store import put


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
def state_dir(tmp_path: Path) -> Path:
    return tmp_path / "state"


@pytest.fixture
def store(state_dir: Path) -> BlobStore:
    return store_in(state_dir)


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


def test_a_timing_cache_that_tensorrt_refuses_is_not_said_to_be_used(
    board: Board, store: BlobStore
) -> None:
    other = b"another GPU's timings"
    put(store, other)
    caches = (replace(manifest().timing_caches[0], file=sha256_hex(other)),)
    files = (*manifest().files[:2], ref("timing-cache", other, "timings"), manifest().files[3])
    found = manifest(files=files, timing_caches=caches)
    how: Callable[[str], tuple[str, ...] | None] = lambda _: command()  # noqa: E731
    ready = asyncio.run(Building(board, how).built(slot_of(store, found), found))  # type: ignore[arg-type]
    plan = loadable(found, ready.form, store).plan
    assert plan is not None
    assert (plan.timing_cache, "timing-cache" in plan.flags) == (None, False)


def test_it_is_built_once(board: Board, store: BlobStore) -> None:
    slot = slot_of(store, manifest())
    ready = build(board, slot)
    assert build(board, ready) is ready, "after a power cut"
    board.state = State(previous=ready)
    again = build(board, slot, version="no version at all")
    assert again.form == ready.form, "going back takes no build"


def test_a_plan_that_was_built_otherwise_is_built_anew(board: Board, store: BlobStore) -> None:
    """A later release of the same ONNX may say that FP16 lost too much."""
    slot = slot_of(store, manifest())
    ready = build(board, slot)
    board.state = State(active=ready)
    exact = manifest(on_device=OnDevice(half=False))
    how: Callable[[str], tuple[str, ...] | None] = lambda _: command()  # noqa: E731
    again = asyncio.run(Building(board, how).built(slot_of(store, exact), exact))  # type: ignore[arg-type]
    plans = [loadable(manifest(), each.form, store).plan for each in (ready, again)]
    assert [plan.flags[0] for plan in plans if plan is not None] == ["float16", "int8"]
    assert again.form != ready.form


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
