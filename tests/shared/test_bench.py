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


class Timed:
    """An engine that takes so many seconds by a clock of its own making."""

    def __init__(self, name: str, seconds: float, world: dict[str, Any]) -> None:
        self.name, self.seconds, self.world = name, seconds, world

    def infer(self, batch: np.ndarray) -> np.ndarray:
        self.world["now"] += self.seconds
        self.world["order"] += self.name
        return np.zeros((1, 6, 16), dtype=np.float32)


def test_engines_take_turns_and_the_warm_up_does_not_count() -> None:
    world: dict[str, Any] = {"now": 0.0, "order": ""}
    engines = [Timed("a", 0.010, world), Timed("b", 0.002, world)]
    slow, fast = timing.interleaved(
        engines, [np.zeros((8, 8, 3), np.uint8)], InputSpec(height=32, width=32),
        OutputSpec(head="yolo-v8", classes=("x", "y")),
        clock=lambda: world["now"], seconds=0.0001, least=4,
    )  # fmt: skip
    assert world["order"] == "baabba" + "abbaabba"
    assert (slow.rounds, fast.rounds) == (4, 4)
    assert (slow.p50, slow.p95, slow.engine_p50) == pytest.approx((10, 10, 10))
    assert fast.p50 == pytest.approx(2)


def test_the_time_is_used() -> None:
    world: dict[str, Any] = {"now": 0.0, "order": ""}
    (only,) = timing.interleaved(
        [Timed("a", 0.1, world)], [np.zeros((8, 8, 3), np.uint8)], InputSpec(height=32, width=32),
        OutputSpec(head="yolo-v8", classes=("x", "y")),
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
