"""The builder's side of a measurement on a board: what it asks, how long it waits, what it says."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from kedge_builder.measure.engines import EngineFile
from kedge_builder.measure.remote import Bench, RemoteLatency, measure_remotely
from kedge_builder.progress import Progress
from kedge_server.bench.tables import BenchJobRow
from kedge_server.database import transaction
from kedge_shared import signing
from kedge_shared.bench import RESULT_TYPE, BenchFailure, BenchJob, Speed, Worker, open_job
from kedge_shared.device_classes import find_class
from kedge_shared.errors import ServiceError
from kedge_shared.manifest import InputSpec, OutputSpec
from kedge_shared.vision import Frame
from tests.sim.bench import bench_result
from tests.sim.device import SimDevice
from tests.sim.world import World, world

SIGNER = signing.generate()
READ = OutputSpec(head="yolo-v8", classes=("circle", "square"))


@pytest.fixture
def running(tmp_path: Path) -> Iterator[World]:
    with world(tmp_path) as found:
        yield found


def measure(
    world: World, tmp_path: Path, meanwhile: Callable[[], object], frames: list[Frame] | None = None
) -> RemoteLatency:
    """Measures; ``meanwhile`` happens between two looks, a minute apart."""
    for name in ("built", "float"):
        (tmp_path / f"{name}.ONNX").write_bytes(name.encode() * 100)
    passed = [0.0]

    def sleep(_: float) -> None:
        passed[0] += 60
        meanwhile()

    return measure_remotely(
        Bench(world.operator, SIGNER, wait_seconds=300, sleep=sleep, clock=lambda: passed[0]),
        find_class("x86-onnxruntime"),
        [EngineFile("engine", tmp_path / "built.ONNX")],
        [EngineFile("engine", tmp_path / "float.ONNX")],
        InputSpec(height=160, width=160), READ, frames or [], Progress(quiet=True),
    )  # fmt: skip


def take(device: SimDevice) -> BenchJob | None:
    """Claims, and opens the job as a worker does."""
    offer = device.http.post("/api/v1/device/bench/claim").json()
    if offer["job"] is None:
        return None
    key = SIGNER.public_key
    worker = Worker(device_class=device.device_class, keys={key.keyid: key})
    return open_job(offer["job"], worker, int(time.time()))


def answer(device: SimDevice, job: BenchJob, failure: BenchFailure | None = None) -> None:
    result = bench_result(job, device.name)
    if failure is not None:
        result = replace(result, engines=(), failure=failure)
    body = signing.seal(result, RESULT_TYPE, device.signer)
    assert device.http.post("/api/v1/device/bench/results", json=body).is_success


def test_a_board_measures_for_the_builder(running: World, tmp_path: Path) -> None:
    device, jobs = running.enrol("bench-1", serves=False), []

    def meanwhile() -> None:
        job = take(device)
        if job is not None:
            jobs.append(job)
            answer(device, job)

    frame = np.full((20, 30, 3), 7, dtype=np.uint8)
    found = measure(running, tmp_path, meanwhile, [frame, frame, frame + 1])
    (job,) = jobs
    assert [each.name for each in job.engines] == ["built", "float"]
    assert len(job.frames) == 2, "each picture goes up once"
    assert all(running.operator.has_artifact(each) for each in job.lengths)
    assert ("x86_64" in job.requires.arch, job.threads) == (True, 1)
    assert found.reference is not None
    assert (found.built.p50, found.built.p95, found.built.rounds) == (2.0, 3.0, 20)
    assert (found.memory_mb, found.speed) == (12.5, Speed(1.5, 1.2, 1.7))
    assert (found.where, found.runtime) == ("bench-1: a board, 4 cores", "1.32.0")


def test_no_board_of_the_class(running: World, tmp_path: Path) -> None:
    other = running.enrol("cam-1", "x86-openvino")
    with pytest.raises(ServiceError) as refused:
        measure(running, tmp_path, lambda: take(other))
    assert "no board of class x86-onnxruntime took the job in 300 s" in str(refused.value)
    assert "start `kedge bench-worker` on one" in str(refused.value)
    late = running.enrol("late")
    assert take(late) is None, "nobody works for a builder that has gone"


def test_a_board_that_falls_silent(running: World, tmp_path: Path) -> None:
    device = running.enrol("bench-1")
    with pytest.raises(ServiceError, match="board bench-1 took the job .* did not answer"):
        measure(running, tmp_path, lambda: take(device))


def test_boards_that_fall_silent_over_it_are_not_waited_for(running: World, tmp_path: Path) -> None:
    device, looks = running.enrol("bench-1"), []

    def meanwhile() -> None:
        looks.append(take(device))
        with transaction(running.context.engine) as session:
            row = session.get(BenchJobRow, looks[0].id)
            assert row is not None
            row.lease_until = 0
            session.add(row)

    with pytest.raises(ServiceError, match="taken 3 times"):
        measure(running, tmp_path, meanwhile)
    assert len(looks) < 10


@pytest.mark.parametrize(
    ("code", "reason", "said"),
    [
        ("trust", "job is not signed by a key", "trusted_keys"),
        ("crash", "engine crashed its process (SIGSEGV)", "SIGSEGV"),
    ],
)
def test_why_a_board_did_not_measure(
    running: World, tmp_path: Path, code: str, reason: str, said: str
) -> None:
    device = running.enrol("bench-1")

    def meanwhile() -> None:
        job = take(device)
        assert job is not None
        answer(device, job, BenchFailure(code=code, reason=reason))  # type: ignore[arg-type]

    with pytest.raises(ServiceError) as refused:
        measure(running, tmp_path, meanwhile)
    assert f"board bench-1 did not measure the build: {reason}" in str(refused.value)
    assert said in str(refused.value)
