"""Bench jobs on the server: one worker at a time, given back after a lease, answered once."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from kedge_server.bench.standing import MAX_ATTEMPTS, standing
from kedge_server.bench.tables import BenchJobRow
from kedge_server.database import transaction
from kedge_shared import signing
from kedge_shared.bench import JOB_TYPE, RESULT_TYPE, BenchFailure, BenchJob, BenchResult
from kedge_shared.errors import ServiceError
from kedge_shared.phases import Phase
from tests.server.both import database  # noqa: F401
from tests.sim.bench import bench_job, bench_result, upload
from tests.sim.device import SimDevice
from tests.sim.world import World, world


@pytest.fixture
def running(tmp_path: Path) -> Iterator[World]:
    with world(tmp_path, bench_lease_seconds=30) as found:
        yield found


def post(world: World, job: BenchJob | None = None) -> BenchJob:
    job = job or upload(world.operator, bench_job())
    world.operator.post_bench_job(signing.seal(job, JOB_TYPE, signing.generate()))
    return job


def claim(device: SimDevice) -> str:
    answer = device.http.post("/api/v1/device/bench/claim")
    assert answer.status_code == 200, answer.text
    return str(answer.json()["id"])


def answer(device: SimDevice, result: BenchResult, **by: Any) -> httpx.Response:
    body = signing.seal(result, by.get("kind", RESULT_TYPE), by.get("signer", device.signer))
    return device.http.post("/api/v1/device/bench/results", json=body)


def lease_ends(world: World, job: str) -> None:
    with transaction(world.context.engine) as session:
        row = session.get(BenchJobRow, job)
        assert row is not None
        row.lease_until = time.time() - 1
        session.add(row)


def test_from_the_builder_to_a_board_and_back(running: World) -> None:
    device = running.enrol("cam-1", serves=False)
    job = post(running)
    assert running.operator.bench_job(job.id).state == "waiting"
    offer = device.http.post("/api/v1/device/bench/claim").json()
    assert signing.peek(offer["job"], BenchJob) == job
    assert (running.operator.bench_job(job.id).state, offer["lease_seconds"]) == ("running", 30)
    result = bench_result(job, "cam-1")
    assert answer(device, result).json() == {"fresh": True}
    found = running.operator.bench_job(job.id)
    assert (found.state, found.result, found.device) == ("done", result, "cam-1")
    assert claim(device) == ""


def test_the_oldest_job_of_the_class_comes_first(running: World) -> None:
    first = upload(running.operator, bench_job("bj-b"))
    post(running, first)
    post(running, replace(first, id="bj-a"))
    post(running, replace(first, id="bj-0", device_class="x86-openvino"))
    assert claim(running.enrol("cam-1")) == "bj-b"
    assert claim(running.enrol("cam-2")) == "bj-a"
    assert claim(running.enrol("cam-3")) == "", "a job of another class"


def test_a_claim_is_exclusive_under_concurrency(running: World) -> None:
    job = upload(running.operator, bench_job())
    names = [f"bj-{at}" for at in range(6)]
    for each in names:
        post(running, replace(job, id=each))
    devices = [running.enrol(f"cam-{at}") for at in range(8)]
    got: list[str] = []
    gate = threading.Barrier(len(devices))

    def ask(device: SimDevice) -> None:
        gate.wait()
        got.append(claim(device))

    threads = [threading.Thread(target=ask, args=(each,)) for each in devices]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert sorted(each for each in got if each) == names
    assert got.count("") == 2
    assert all(running.operator.bench_job(each).attempts == 1 for each in names)


def test_a_lost_answer_is_asked_for_again(running: World) -> None:
    device = running.enrol("cam-1")
    job = post(running)
    assert claim(device) == claim(device) == job.id
    assert running.operator.bench_job(job.id).attempts == 1


def test_a_worker_that_dies_gives_the_job_back(running: World) -> None:
    dead, heir = running.enrol("cam-1"), running.enrol("cam-2")
    job = post(running)
    assert claim(dead) == job.id
    assert claim(heir) == ""
    lease_ends(running, job.id)
    assert claim(heir) == job.id
    late = answer(dead, bench_result(job, "cam-1"))
    assert late.status_code == 409, "it is another's by now"
    assert answer(heir, bench_result(job, "cam-2")).is_success


def test_a_job_that_silences_boards_is_given_up(running: World) -> None:
    device = running.enrol("cam-1")
    job = post(running)
    for _ in range(MAX_ATTEMPTS):
        assert claim(device) == job.id
        lease_ends(running, job.id)
    assert claim(device) == ""
    assert running.operator.bench_job(job.id).state == "lost"


def test_who_renews_keeps_it(running: World) -> None:
    holder, other = running.enrol("cam-1"), running.enrol("cam-2")
    job = post(running)
    claim(holder)
    lease_ends(running, job.id)
    path = f"/api/v1/device/bench/jobs/{job.id}/renew"
    assert holder.http.post(path).status_code == 204
    assert claim(other) == ""
    assert other.http.post(path).status_code == 409
    assert other.http.post("/api/v1/device/bench/jobs/bj-none/renew").status_code == 404


def test_a_result_counts_once(running: World) -> None:
    device = running.enrol("cam-1")
    job = post(running)
    claim(device)
    result = bench_result(job, "cam-1")
    assert answer(device, result).json() == {"fresh": True}
    assert answer(device, result).json() == {"fresh": False}
    other = replace(result, engines=(), failure=BenchFailure(code="crash", reason="second thought"))
    assert answer(device, other).status_code == 409
    assert running.operator.bench_job(job.id).result == result


def test_results_that_are_not_to_be_trusted(running: World) -> None:
    mine, other = running.enrol("cam-1"), running.enrol("cam-2")
    job = post(running)
    claim(mine)
    good = bench_result(job, "cam-1")
    assert answer(other, good).status_code == 400, "signed by another board"
    assert answer(mine, replace(good, device="cam-2")).status_code == 400
    assert answer(mine, good, kind=JOB_TYPE).status_code == 400, "another kind of message"
    assert answer(other, bench_result(job, "cam-2")).status_code == 409, "never took it"
    assert answer(mine, replace(good, job="bj-none")).status_code == 404
    assert running.operator.bench_job(job.id).state == "running"


def test_tokens_do_not_cross_roles(running: World) -> None:
    device = running.enrol("cam-1")
    job = upload(running.operator, bench_job())
    envelope = signing.seal(job, JOB_TYPE, signing.generate())
    assert device.http.post("/api/v1/bench/jobs", json=envelope).status_code == 401
    post(running, job)
    assert device.http.get(f"/api/v1/bench/jobs/{job.id}").status_code == 401
    assert device.http.get("/api/v1/bench/jobs").status_code == 401
    assert device.http.post(f"/api/v1/bench/jobs/{job.id}/withdraw").status_code == 401
    operator = running.operator.http
    assert operator.post("/api/v1/device/bench/claim").status_code == 401
    assert operator.post("/api/v1/device/bench/results", json=envelope).status_code == 401
    assert httpx.post(f"{running.url}/api/v1/device/bench/claim").status_code == 401


def test_jobs_that_are_refused(running: World) -> None:
    job = upload(running.operator, bench_job())
    now = int(time.time())
    refused = {
        "not uploaded": bench_job("bj-1", engine=b"bytes that nobody uploaded"),
        "has expired": replace(job, expires=now - 1),
        "more than a day": replace(job, expires=now + 2 * 86400),
    }
    for said, each in refused.items():
        with pytest.raises(ServiceError, match=said):
            post(running, each)
    post(running, job)
    with pytest.raises(ServiceError, match="another bench job"):
        post(running, replace(job, threads=2))
    raw = running.operator.http.post("/api/v1/bench/jobs", json={"payload": "?"})
    assert raw.status_code == 400
    huge = running.operator.http.post("/api/v1/bench/jobs", content=b" " * 2**20)
    assert huge.status_code == 413


def test_a_job_is_posted_once(running: World) -> None:
    job, signer = upload(running.operator, bench_job()), signing.generate()
    envelope = signing.seal(job, JOB_TYPE, signer)
    for _ in range(2):
        assert running.operator.post_bench_job(envelope).id == job.id
    assert len(running.operator.http.get("/api/v1/bench/jobs").json()) == 1


def test_what_nobody_waits_for_is_not_begun(running: World) -> None:
    device = running.enrol("cam-1")
    job = post(running)
    assert running.operator.withdraw_bench_job(job.id).state == "expired"
    assert claim(device) == ""


@pytest.mark.parametrize(
    ("answered", "expires", "lease_until", "attempts", "stands"),
    [
        (False, 100, 0, 0, "waiting"),
        (False, 100, 60, 1, "running"),
        (False, 100, 50, 1, "waiting"),
        (False, 100, 0, 3, "lost"),
        (False, 50, 0, 0, "expired"),
        (False, 50, 60, 1, "running"),
        (True, 50, 60, 3, "done"),
    ],
)
def test_where_a_job_stands(
    answered: bool, expires: float, lease_until: float, attempts: int, stands: str
) -> None:
    found = standing(
        answered=answered, expires=expires, lease_until=lease_until, attempts=attempts, now=50
    )
    assert found == stands


def test_no_rollout_waits_for_a_board_that_only_measures(running: World) -> None:
    running.enrol("bench-1", serves=False)
    running.publish("1.0", 10)
    with pytest.raises(ServiceError, match="no device can take"):
        running.roll_out("1.0")
    board = running.enrol("cam-1")
    rollout = running.roll_out("1.0")
    board.live()
    running.tick()
    assert running.operator.rollout(rollout.id).state == "completed"
    running.enrol("bench-2", serves=False)
    rows = running.operator.rollout_deployments(rollout.id)
    assert [each.device for each in rows] == ["cam-1"]


def test_a_board_that_measured_serves_once_its_agent_runs(running: World) -> None:
    """Its key was let in to measure; the agent of the same folder enrols no more."""
    board = running.enrol("bench-1", serves=False)
    running.publish("1.0", 10)
    with pytest.raises(ServiceError, match="every device is revoked or only measures"):
        running.roll_out("1.0")
    board.send(board.report(Phase.IDLE))
    assert running.operator.device("bench-1").serves
    rollout = running.roll_out("1.0")
    board.live()
    running.tick()
    assert running.operator.rollout(rollout.id).state == "completed"
