"""The process that measures for a bench worker: real engines, in turn, from verified bytes."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest

from kedge_agent import facts
from kedge_agent.bench import child
from kedge_agent.bench.child import Order, Outcome, figures
from kedge_agent.bench.worker import read_outcome
from kedge_agent.blobs import BlobStore
from kedge_agent.children import run_module
from kedge_shared.bench import BenchEngine, BenchJob, FrameRef, NoiseFrames, Speed
from kedge_shared.device_classes import RuntimeRange
from kedge_shared.errors import TrustError
from kedge_shared.manifest import FileRef, InputSpec
from kedge_shared.timing import Latency
from tests.sim.bench import bench_job
from tests.sim.exits import aborts_at_exit
from tests.sim.onnx_engine import SIZE, tiny_onnx
from tests.sim.store import put


def tiny_job(store: BlobStore, runtime: str, frames: tuple[FrameRef, ...] = ()) -> BenchJob:
    def engine(name: str, seed: int) -> BenchEngine:
        body = tiny_onnx(seed)
        file = FileRef(role="engine", name="engine", sha256=put(store, body), length=len(body))
        return BenchEngine(name=name, files=(file,))

    return replace(
        bench_job(), runtime=RuntimeRange(name=runtime, range=">=1"),
        engines=(engine("built", 0), engine("float", 1)), input=InputSpec(height=SIZE, width=SIZE),
        noise=NoiseFrames(height=48, width=40), frames=frames,
    )  # fmt: skip


def in_child(store: BlobStore, job: BenchJob) -> Outcome:
    order = msgspec.json.encode(Order(blobs=str(store.root), job=job))
    return read_outcome(asyncio.run(run_module("kedge_agent.bench.child", order, 60)), 60)


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_a_real_child_measures_in_turn(tmp_path: Path, runtime: str) -> None:
    store = BlobStore(tmp_path / "blobs")
    outcome = in_child(store, tiny_job(store, runtime))
    assert outcome.failure is None, outcome.failure
    first, second = outcome.engines
    assert (first.name, second.name) == ("built", "float")
    assert first.rounds == second.rounds >= 4
    assert first.p95_ms >= first.p50_ms >= first.engine_p50_ms > 0
    assert first.memory_mb is not None
    assert second.memory_mb is None, "a process that holds the other engine cannot tell"
    assert first.outrun is None
    assert second.outrun is not None


def test_a_library_that_aborts_at_exit_is_no_fault_of_the_engine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    aborts_at_exit(tmp_path, monkeypatch)
    store = BlobStore(tmp_path / "blobs")
    outcome = in_child(store, tiny_job(store, "onnxruntime"))
    assert outcome.failure is None, outcome.failure
    assert "onnxruntime" in facts.runtimes(), "the child that asks them is believed too"


def test_how_far_the_build_outruns_float_comes_from_the_rounds() -> None:
    """The medians alone say three times; round by round it is twice, and once it was not so."""
    built = Latency(10, 10, 9, 3, (10.0, 10.0, 10.0))
    other = Latency(30, 40, 29, 3, (15.0, 20.0, 40.0))
    first, second = figures(["built", "float"], [built, other], 5.0)
    assert (first.outrun, second.outrun) == (None, Speed(2.0, 1.5, 4.0))
    assert (first.memory_mb, second.memory_mb) == (5.0, None)


def test_a_real_child_says_why_not(tmp_path: Path) -> None:
    store = BlobStore(tmp_path / "blobs")
    no_picture = FrameRef(sha256=put(store, b"no picture"), length=10)
    for job, said in (
        (tiny_job(store, "onnxruntime", (no_picture,)), "is no image"),
        (tiny_job(store, "tensorrt"), "not on the board"),
    ):
        failure = in_child(store, job).failure
        assert failure is not None
        assert failure.code == "engine"
        assert said in failure.reason


def test_altered_on_the_board_reaches_no_runtime(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = BlobStore(tmp_path / "blobs")
    job = tiny_job(store, "onnxruntime")
    path = store.path(job.engines[0].files[0].sha256)
    body = bytearray(path.read_bytes())
    body[len(body) // 3] ^= 0x10
    path.write_bytes(body)

    class Trap:
        """A runtime that must not be called."""

        def probe(self) -> str:
            return "here"

        def load(self, *_: Any, **__: Any) -> None:
            raise AssertionError("unverified bytes reached a runtime")

    monkeypatch.setattr(child, "RUNTIMES", {"onnxruntime": Trap()})
    with pytest.raises(TrustError, match="altered"):
        child.measure(Order(blobs=str(store.root), job=job))


def test_the_child_stays_on_its_cores() -> None:
    import os

    from kedge_agent import limits

    before = os.sched_getaffinity(0)
    try:
        limits.pin(1)
        assert os.sched_getaffinity(0) == {min(before)}
    finally:
        os.sched_setaffinity(0, before)
