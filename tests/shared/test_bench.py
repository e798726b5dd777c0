"""What a worker may run, how rounds are counted, and what a machine is called. All pure."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from securesystemslib.signer import CryptoSigner

from kedge_shared import signing, timing
from kedge_shared.bench import JOB_TYPE, RESULT_TYPE, BenchJob, Worker, open_job
from kedge_shared.errors import TrustError
from kedge_shared.machine import in_words
from kedge_shared.manifest import InputSpec, OutputSpec
from tests.sim.bench import bench_job

BUILDER, STRANGER = signing.generate(), signing.generate()
JOB = replace(bench_job(), issued=1000, expires=2000)


def worker(**changes: Any) -> Worker:
    key = BUILDER.public_key
    fields: dict[str, Any] = {"device_class": "x86-onnxruntime", "keys": {key.keyid: key}}
    return Worker(**(fields | changes))


def sealed(job: BenchJob = JOB, by: CryptoSigner = BUILDER, kind: str = JOB_TYPE) -> dict[str, Any]:
    return signing.seal(job, kind, by)


def altered(envelope: dict[str, Any]) -> dict[str, Any]:
    from base64 import b64decode, b64encode

    body = b64decode(envelope["payload"]).replace(b'"threads":1', b'"threads":2')
    return envelope | {"payload": b64encode(body).decode()}


def as_if_by(envelope: dict[str, Any], keyid: str) -> dict[str, Any]:
    return envelope | {"signatures": [envelope["signatures"][0] | {"keyid": keyid}]}


def test_a_job_of_a_trusted_builder() -> None:
    assert open_job(sealed(), worker(), 1500) == JOB


@pytest.mark.parametrize(
    ("envelope", "code"),
    [
        (sealed(by=STRANGER), "signature"),
        (as_if_by(sealed(by=STRANGER), BUILDER.public_key.keyid), "signature"),
        (sealed() | {"signatures": []}, "signature"),
        (sealed() | {"signatures": "none"}, "signature"),
        (altered(sealed()), "signature"),
        (sealed(kind=RESULT_TYPE), "type"),
        (sealed(replace(JOB, device_class="x86-openvino")), "class"),
        (sealed(replace(JOB, expires=1500)), "expired"),
        (sealed(replace(JOB, expires=1000 + 86401)), "life"),
        (sealed(replace(JOB, threads=0)), "payload"),
        (sealed(replace(JOB, engines=())), "payload"),
        ({}, "signature"),
    ],
)
def test_jobs_that_no_worker_runs(envelope: dict[str, Any], code: str) -> None:
    with pytest.raises(TrustError) as refused:
        open_job(envelope, worker(), 1500)
    assert refused.value.code == code


def test_a_job_runs_once() -> None:
    with pytest.raises(TrustError) as refused:
        open_job(sealed(), worker(began={JOB.id}), 1500)
    assert refused.value.code == "replay"


def test_a_board_without_a_clock_knows_the_newest_time_it_was_told() -> None:
    assert open_job(sealed(), worker(newest=1999), 0) == JOB
    with pytest.raises(TrustError, match="expired"):
        open_job(sealed(), worker(newest=2000), 0)


class Slow:
    """An engine that takes so many seconds by a clock of its own making."""

    def __init__(self, name: str, seconds: float, world: dict[str, Any]) -> None:
        self.name, self.seconds, self.world = name, seconds, world

    def infer(self, batch: np.ndarray) -> np.ndarray:
        self.world["now"] += self.seconds
        self.world["order"] += self.name
        return np.zeros((1, 6, 16), dtype=np.float32)


def timed(name: str, seconds: float, world: dict[str, Any]) -> timing.Timed:
    read = OutputSpec(head="yolo-v8", classes=("x", "y"))
    return timing.Timed(Slow(name, seconds, world), InputSpec(height=32, width=32), read)


def latency(frames_ms: list[float]) -> timing.Latency:
    p50, p95 = float(np.quantile(frames_ms, 0.5)), float(np.quantile(frames_ms, 0.95))
    return timing.Latency(p50, p95, p50, len(frames_ms), tuple(frames_ms))


def test_speed_is_that_of_the_rounds_not_of_the_worst_of_them() -> None:
    before, after = [10.0] * 40, [5.0] * 40
    before[3] = after[20] = 400.0  # somebody took the core
    found = timing.speed(latency(before), latency(after))
    assert (found.ratio, found.low, found.high) == (2.0, 2.0, 2.0)


def test_the_interval_of_speed_covers_equal_engines() -> None:
    rng = np.random.default_rng(3)
    missed = 0
    for _ in range(300):
        both = rng.lognormal(2, 0.2, (2, 60))
        found = timing.speed(latency(both[0].tolist()), latency(both[1].tolist()))
        missed += not found.low <= 1.0 <= found.high
    assert missed <= 0.08 * 300


@pytest.mark.parametrize("frames", [[], [5.0, 5.0]])
def test_without_the_same_rounds_there_is_no_speed(frames: list[float]) -> None:
    whole = latency([5.0, 5.0, 5.0])
    with pytest.raises(ValueError, match="rounds|zip"):
        timing.speed(replace(whole, frames_ms=tuple(frames)), whole)


def test_engines_take_turns_and_the_warm_up_does_not_count() -> None:
    world: dict[str, Any] = {"now": 0.0, "order": ""}
    engines = [timed("a", 0.010, world), timed("b", 0.002, world)]
    slow, fast = timing.interleaved(
        engines, [np.zeros((8, 8, 3), np.uint8)],
        clock=lambda: world["now"], seconds=0.0001, least=4,
    )  # fmt: skip
    assert world["order"] == "baabba" + "abbaabba"
    assert (slow.rounds, fast.rounds) == (4, 4)
    assert (slow.p50, slow.p95, slow.engine_p50) == pytest.approx((10, 10, 10))
    assert fast.p50 == pytest.approx(2)


def test_the_time_is_used() -> None:
    world: dict[str, Any] = {"now": 0.0, "order": ""}
    (only,) = timing.interleaved(
        [timed("a", 0.1, world)], [np.zeros((8, 8, 3), np.uint8)],
        clock=lambda: world["now"], seconds=2.0, least=4,
    )  # fmt: skip
    assert only.rounds == pytest.approx(17, abs=1)


@pytest.mark.parametrize(
    ("cpuinfo", "board", "said"),
    [
        ("model name\t: EPYC\nflags\t: avx2 avx512_vnni\n", "", "EPYC, 4 cores, with VNNI"),
        ("model name\t: Xeon\nflags\t: avx2\n", "", "Xeon, 4 cores, without VNNI"),
        ("processor\t: 0\nFeatures\t: asimd\n", "Raspberry Pi 5", "Raspberry Pi 5, 4 cores"),
        ("", "", "aarch64, 4 cores"),
    ],
)
def test_machines_in_words(cpuinfo: str, board: str, said: str) -> None:
    assert in_words(cpuinfo, board, "aarch64", 4) == said
