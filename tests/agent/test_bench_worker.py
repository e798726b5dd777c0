"""A bench worker against a real server: what it measures, and what it never runs."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import msgspec
import pytest

from kedge_agent import access, enrolment, facts
from kedge_agent.bench import worker
from kedge_agent.bench.child import Order, Outcome
from kedge_agent.bench.settings import BenchSettings, read_bench_settings
from kedge_agent.bench.worker import BenchWorker, read_outcome
from kedge_agent.children import Left
from kedge_agent.server_client import ServerClient
from kedge_builder.publishing.keys import create_pair
from kedge_server.bench.tables import BenchJobRow
from kedge_server.database import transaction
from kedge_shared import api, signing, wire
from kedge_shared.bench import (
    JOB_TYPE,
    BenchEngine,
    BenchJob,
    BenchResult,
    EngineFigures,
)
from kedge_shared.errors import InputError, ServiceError, TrustError
from kedge_shared.ids import sha256_hex
from kedge_shared.manifest import Requires
from kedge_shared.protocol import DeviceFacts
from tests.shared import samples
from tests.sim.bench import ENGINE, bench_job, upload
from tests.sim.world import World
from tests.waiting import wait_until

FIGURES = EngineFigures(name="built", p50_ms=2, p95_ms=3, engine_p50_ms=1.5, rounds=20)
MEASURED = Left(0, msgspec.json.encode(Outcome(engines=(FIGURES,))), b"")


@dataclass
class Bench:
    """A worker's board and the builder it trusts.

    Attributes:
        leaves: What the child will leave behind.
        orders: What the child was given.
    """

    world: World
    settings: BenchSettings
    signer: Any
    monkeypatch: pytest.MonkeyPatch
    leaves: Left = MEASURED
    orders: list[Order] = field(default_factory=list)

    def __post_init__(self) -> None:
        async def run(module: str, job: bytes, _: float) -> Left:
            assert module == "kedge_agent.bench.child"
            self.orders.append(msgspec.json.decode(job, type=Order))
            return self.leaves

        self.monkeypatch.setattr(worker, "run_module", run)
        self.monkeypatch.setattr(facts, "gather", samples.facts)

    @property
    def blobs(self) -> list[str]:
        return sorted(each.name for each in (self.settings.home / "blobs").iterdir())

    def post(self, job: BenchJob | None = None, signer: Any = None) -> BenchJob:
        job = job or upload(self.world.operator, bench_job())
        self.world.operator.post_bench_job(signing.seal(job, JOB_TYPE, signer or self.signer))
        return job

    def step(self, board: DeviceFacts | None = None) -> BenchResult | None:
        """Starts the worker, has it ask once and ends it."""

        async def work() -> BenchResult | None:
            async with ServerClient(self.settings.server) as server:
                me = await enrolment.enrolled(self.settings, server)
                access.let_in(me, server, "bench-worker")
                made = BenchWorker(self.settings, server, me, board or samples.facts())
                return (await made.step())[0]

        return asyncio.run(work())

    def refused(self) -> str:
        """Steps; returns the failure's code after checking that nothing was fetched or run."""
        result = self.step()
        assert result is not None
        assert result.failure is not None
        assert self.orders == []
        assert self.blobs == []
        assert self.world.operator.bench_job(result.job).result == result
        return result.failure.code


@pytest.fixture
def bench(running: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    public = create_pair(tmp_path / "bench.key")
    (tmp_path / "token").write_text(running.operator.enrolment_tokens(api.TokenRequest())[0].token)
    settings = BenchSettings(
        server=running.url, state_dir=tmp_path / "state", device="bench-1",
        device_class="x86-onnxruntime", trusted_keys=(public,),
        enrolment_token_file=tmp_path / "token",
    )  # fmt: skip
    return Bench(running, settings, signing.load_private_key(tmp_path / "bench.key"), monkeypatch)


def rewrite(bench: Bench, job: BenchJob, envelope: dict[str, Any]) -> None:
    """Does what a server could that was taken over."""
    with transaction(bench.world.context.engine) as session:
        row = session.get(BenchJobRow, job.id)
        assert row is not None
        row.envelope = json.dumps(envelope)
        session.add(row)


def test_a_job_is_measured_and_answered(bench: Bench) -> None:
    job = bench.post()
    result = bench.step()
    assert result is not None
    assert result.engines == (FIGURES,)
    assert (result.device, result.runtime, result.failure) == ("bench-1", "1.32.0", None)
    assert [each.job for each in bench.orders] == [job]
    assert bench.blobs == [sha256_hex(ENGINE)]
    assert bench.world.operator.bench_job(job.id).result == result
    assert bench.step() is None, "there is nothing more to do"
    assert not bench.world.operator.device("bench-1").serves


def test_jobs_that_it_does_not_trust(bench: Bench) -> None:
    job = bench.post(signer=signing.generate())
    assert bench.refused() == "trust"
    swapped = replace(job, id="bj-2", engines=(BenchEngine(name="built", files=(
        replace(job.engines[0].files[0], sha256="f" * 64),)),))  # fmt: skip
    bench.post(replace(job, id="bj-2"))
    forged = signing.seal(swapped, JOB_TYPE, signing.generate())
    forged["signatures"][0]["keyid"] = bench.signer.public_key.keyid
    rewrite(bench, swapped, forged)
    assert bench.refused() == "trust"


def test_an_expired_job_that_the_server_hands_out_again(bench: Bench) -> None:
    job = bench.post()
    old = replace(job, issued=1000, expires=2000)
    rewrite(bench, job, signing.seal(old, JOB_TYPE, bench.signer))
    assert bench.refused() == "trust"


def test_another_job_under_this_ones_name(bench: Bench) -> None:
    job = bench.post()
    rewrite(bench, job, signing.seal(replace(job, id="bj-9"), JOB_TYPE, bench.signer))
    assert bench.refused() == "trust"


def test_a_job_is_begun_once_whatever_becomes_of_the_board(bench: Bench) -> None:
    job = bench.post()
    bench.step()
    with transaction(bench.world.context.engine) as session:
        row = session.get(BenchJobRow, job.id)
        assert row is not None
        row.result = ""
        session.add(row)
    result = bench.step()
    assert result is not None
    assert result.failure is not None
    assert result.failure.code == "replay"
    assert len(bench.orders) == 1


def test_a_worker_that_is_stopped_may_begin_again(bench: Bench) -> None:
    job = bench.post()

    async def stopped(*_: Any) -> Left:
        raise asyncio.CancelledError

    with bench.monkeypatch.context() as patch:
        patch.setattr(worker, "run_module", stopped)
        with pytest.raises(asyncio.CancelledError):
            bench.step()
    result = bench.step()
    assert result is not None
    assert (result.job, result.failure) == (job.id, None)


def test_bytes_that_were_altered_on_the_server(bench: Bench) -> None:
    bench.post()
    digest = sha256_hex(ENGINE)
    stored = bench.world.context.store.path(digest)
    stored.write_bytes(b"X" + ENGINE[1:])
    assert bench.refused() == "trust"


def test_a_board_that_does_not_fit(bench: Bench) -> None:
    job = upload(bench.world.operator, bench_job())
    bench.post(replace(job, requires=Requires(cpu_flags=("avx512_vnni",))))
    assert bench.refused() == "misfit"


def test_a_job_that_is_too_large(bench: Bench) -> None:
    bench.settings = replace(bench.settings, job_mb=0.0001)
    bench.post()
    assert bench.refused() == "disk"


def test_files_of_earlier_jobs_go(bench: Bench) -> None:
    bench.post()
    bench.step()
    body = b"another engine"
    bench.post(upload(bench.world.operator, bench_job("bj-2", body), body))
    bench.step()
    assert bench.blobs == [sha256_hex(body)]


def test_a_server_that_is_away_for_a_while(bench: Bench) -> None:
    job, real, tries = bench.post(), ServerClient.send_bench_result, []

    async def send(self: ServerClient, envelope: dict[str, Any]) -> None:
        tries.append(envelope)
        if len(tries) < 3:
            raise ServiceError("away")
        await real(self, envelope)

    bench.monkeypatch.setattr(ServerClient, "send_bench_result", send)
    bench.monkeypatch.setattr(worker, "backoff_seconds", lambda _: 0.0)
    bench.step()
    assert len(tries) == 3
    assert bench.world.operator.bench_job(job.id).state == "done"


@pytest.mark.parametrize(
    ("left", "code"),
    [
        (Left(None, b"", b""), "hang"),
        (Left(-11, b"{}", b""), "crash"),
        (Left(1, b"", b"the last words"), "crash"),
        (Left(0, b'{"engines": [{"name": "built", "p50_ms": -1}]}', b""), "crash"),
    ],
)
def test_what_a_dying_child_leaves(left: Left, code: str) -> None:
    failure = read_outcome(left, 5).failure
    assert failure is not None
    assert failure.code == code


CONFIG = {"server": "https://kedge.example", "state_dir": "state", "device": "bench-1",
          "device_class": "x86-onnxruntime", "trusted_keys": ["bench.key.pub"]}  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"trusted_keys": []}, "trusted_keys"),
        ({"server": "http://kedge.example"}, "plain HTTP"),
        ({"sauce": 1}, "unknown settings: sauce"),
        ({"job_seconds": 0}, "job_seconds"),
    ],
)
def test_configurations_that_are_refused(
    tmp_path: Path, changes: dict[str, Any], said: str
) -> None:
    path = tmp_path / "bench.yaml"
    path.write_bytes(wire.encode(CONFIG | changes))
    with pytest.raises(InputError, match=said):
        read_bench_settings(path)


def test_paths_are_relative_to_the_configuration(tmp_path: Path) -> None:
    path = tmp_path / "bench.yaml"
    path.write_bytes(wire.encode(CONFIG))
    settings = read_bench_settings(path)
    assert settings.state_dir == tmp_path / "state"
    assert settings.trusted_keys == (tmp_path / "bench.key.pub",)


def test_the_example_is_a_configuration() -> None:
    example = Path(__file__).parents[2] / "agent" / "bench.example.yaml"
    assert read_bench_settings(example).device_class == "x86-onnxruntime"


def test_keys_that_are_none(bench: Bench, tmp_path: Path) -> None:
    (tmp_path / "none.pub").write_text('{"keyid": "x"}')
    bench.settings = replace(bench.settings, trusted_keys=(tmp_path / "none.pub",))
    with pytest.raises(TrustError, match="public key"):
        bench.step()


def test_a_job_at_work_is_kept_however_long_it_takes(bench: Bench) -> None:
    bench.world.context.settings.bench_lease_seconds = 60.0
    assert worker._RENEWALS > 1, "renewed before it ends"
    bench.monkeypatch.setattr(worker, "_RENEWALS", 600)
    rival, job, claimed = bench.world.enrol("rival"), bench.post(), []

    def held_until() -> float:
        with transaction(bench.world.context.engine) as session:
            return session.get_one(BenchJobRow, job.id).lease_until

    async def slow(*_: Any) -> Left:
        begun = held_until()
        await wait_until(lambda: held_until() > begun + 0.3)
        ask = await asyncio.to_thread(rival.http.post, "/api/v1/device/bench/claim")
        claimed.append(ask.json()["id"])
        return MEASURED

    bench.monkeypatch.setattr(worker, "run_module", slow)
    result = bench.step()
    assert claimed == [""]
    assert bench.world.operator.bench_job(job.id).result == result
