"""The bench worker: asks for a job, checks who signed it, has a child measure it, answers."""

from __future__ import annotations

import asyncio
import contextlib
import random
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import msgspec

from kedge_agent import access, enrolment, facts
from kedge_agent.bench.child import Order, Outcome
from kedge_agent.bench.diary import Diary
from kedge_agent.bench.settings import BenchSettings, read_keys
from kedge_agent.blobs import BlobStore
from kedge_agent.children import Left, run_module
from kedge_agent.disk import disk_error
from kedge_agent.downloads import Downloader, backoff_seconds
from kedge_agent.identity import Identity
from kedge_agent.server_client import ServerClient
from kedge_shared import machine, signing
from kedge_shared.bench import (
    RESULT_TYPE,
    BenchCode,
    BenchFailure,
    BenchJob,
    BenchOffer,
    BenchResult,
    Worker,
    open_job,
)
from kedge_shared.errors import KedgeError, ServiceError, StorageError, TrustError
from kedge_shared.protocol import DeviceFacts
from kedge_shared.resolver import fit

#: Share of the interval by which questions are spread.
_JITTER = 0.2
#: A result is offered again so often before it is given up with its lease.
_TRIES = 8
#: Parts of the lease after which it is renewed.
_RENEWALS = 3


class BenchWorker:
    """One board that measures.

    Args:
        settings: Configuration.
        server: Connection, authorised as the board.
        me: Who the board is.
        board: What it is.

    Raises:
        InputError: A trusted key cannot be read.
        TrustError: A trusted key is none.
        StorageError: The state directory cannot be written.
    """

    def __init__(
        self, settings: BenchSettings, server: ServerClient, me: Identity, board: DeviceFacts
    ) -> None:
        self._settings, self._server, self._me, self._board = settings, server, me, board
        self._keys = read_keys(settings.trusted_keys)
        self._store = BlobStore(settings.home / "blobs")
        try:
            self._store.root.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise disk_error(self._store.root, error) from None
        self._diary = Diary(settings.home / "diary.json")
        self._downloader = Downloader(
            server.http, self._store, settings.home / "partial", lambda _: None
        )

    async def step(self) -> tuple[BenchResult | None, float]:
        """Asks once, and measures and answers what there is.

        Returns:
            The answer, if there was a job, and the seconds until the next question.

        Raises:
            ServiceError: The server is down, or took the job away meanwhile.
            StorageError: The disk is full or cannot be written.
        """
        offer = await self._server.claim_bench_job()
        if offer.job is None:
            return None, offer.next_seconds
        async with self._lease(offer):
            result = await self._answer(offer.id, offer.job)
            await self._send(result)
        return result, 0.0

    async def _answer(self, name: str, envelope: dict[str, Any]) -> BenchResult:
        """Returns what there is to say of a job; nothing of it is fetched before it is trusted."""
        worker = Worker(
            device_class=self._settings.device_class, keys=self._keys,
            began=self._diary.began, newest=self._diary.newest,
        )  # fmt: skip
        try:
            job = open_job(envelope, worker, int(time.time()))
            if job.id != name:
                raise TrustError("mix", f"the server hands out {job.id} as {name}")
        except TrustError as error:
            code: BenchCode = "replay" if error.code == "replay" else "trust"
            return self._result(name, "", Outcome(failure=_failure(code, error)))
        fits = fit(job.runtime, job.requires, self._board)
        version = self._board.runtimes.get(job.runtime.name, "")
        if not fits.fits:
            failure = BenchFailure(code="misfit", reason=fits.reason)
            return self._result(name, version, Outcome(failure=failure))
        return self._result(name, version, await self._fetch_and_measure(job))

    async def _fetch_and_measure(self, job: BenchJob) -> Outcome:
        try:
            await self._fetch(job)
        except TrustError as error:
            return Outcome(failure=_failure("trust", error))
        except ServiceError as error:
            return Outcome(failure=_failure("network", error))
        except StorageError as error:
            return Outcome(failure=_failure("disk", error))
        self._diary.begin(job)
        self._say(f"measures {job.id}: {', '.join(each.name for each in job.engines)}")
        order = Order(
            blobs=str(self._store.root), job=job, memory_mb=self._settings.memory_mb
        )  # fmt: skip
        limit = self._settings.job_seconds
        try:
            left = await run_module("kedge_agent.bench.child", msgspec.json.encode(order), limit)
        except asyncio.CancelledError:
            # The worker was told to stop; the engine did nothing wrong.
            self._diary.forget(job.id)
            raise
        return read_outcome(left, limit)

    async def _fetch(self, job: BenchJob) -> None:
        """Brings every file of a job and lets go of those of earlier ones."""
        wanted = job.lengths
        total = sum(wanted.values()) / 2**20
        if total > self._settings.job_mb:
            raise StorageError(
                f"job takes {total:.0f} MiB, this worker {self._settings.job_mb:.0f}",
                "raise job_mb in its configuration",
            )
        for path in self._store.root.iterdir():
            if path.name not in wanted:
                path.unlink(missing_ok=True)
        for sha256, length in wanted.items():
            await self._downloader.fetch(sha256, length)

    def _result(self, job: str, version: str, outcome: Outcome) -> BenchResult:
        return BenchResult(
            job=job, device=self._me.device, machine=machine.describe()[:300], runtime=version,
            measured=int(time.time()), engines=outcome.engines, failure=outcome.failure,
        )  # fmt: skip

    @contextlib.asynccontextmanager
    async def _lease(self, offer: BenchOffer) -> AsyncIterator[None]:
        """Keeps the job while the body runs; a slow line must not hand it to another."""

        async def keep() -> None:
            while True:
                await asyncio.sleep(offer.lease_seconds / _RENEWALS)
                # Lost or unreachable: the server says so when the result comes.
                with contextlib.suppress(ServiceError):
                    await self._server.renew_bench_job(offer.id)

        kept = asyncio.ensure_future(keep())
        try:
            yield
        finally:
            kept.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await kept

    async def _send(self, result: BenchResult) -> None:
        """Offers a result until the server takes it or says that it does not want it.

        Raises:
            ServiceError: Refused, or the server stays away.
        """
        envelope = signing.seal(result, RESULT_TYPE, self._me.signer)
        for attempt in range(_TRIES):
            try:
                await self._server.send_bench_result(envelope)
                break
            except ServiceError as error:
                refused = error.status is not None and 400 <= error.status < 500
                if refused or attempt == _TRIES - 1:
                    raise
            await asyncio.sleep(backoff_seconds(attempt))
        self._say(f"answered {result.job}: {in_words(result)}")

    def _say(self, line: str) -> None:
        """Writes a line for whoever looks after this board."""
        stamp = time.strftime("%H:%M:%S")
        print(f"{stamp} {self._me.device} {line}", file=sys.stderr, flush=True)


def read_outcome(left: Left, limit_seconds: float) -> Outcome:
    """Turns what a child left into an outcome. Pure."""
    if left.status is None:
        reason = f"engine hangs: no result in {limit_seconds:.0f} s"
        return Outcome(failure=BenchFailure(code="hang", reason=reason))
    if left.signal:
        reason = f"engine crashed its process ({left.signal})"
        return Outcome(failure=BenchFailure(code="crash", reason=reason))
    try:
        return msgspec.json.decode(left.output, type=Outcome)
    except msgspec.MsgspecError:
        reason = f"measuring ended with {left.status}: {left.last_words}"
        return Outcome(failure=BenchFailure(code="crash", reason=reason[:1000]))


def in_words(result: BenchResult) -> str:
    """Returns one line for people."""
    if result.failure is not None:
        return f"{result.failure.code}: {result.failure.reason}"
    return ", ".join(f"{each.name} p50 {each.p50_ms:.1f} ms" for each in result.engines)


def _failure(code: BenchCode, error: KedgeError) -> BenchFailure:
    return BenchFailure(code=code, reason=str(error)[:1000])


async def run(
    settings: BenchSettings, *, once: bool, answered: Callable[[BenchResult], None]
) -> BenchResult | None:
    """Works until told to stop.

    Args:
        settings: Configuration.
        once: Ends after the first answer.
        answered: Told of each answer.

    Returns:
        The answer, with ``once``.

    Raises:
        InputError: A key or the token is missing or refused.
        StorageError: The state directory cannot be written.
    """
    loop, me = asyncio.get_running_loop(), asyncio.current_task()
    if me is None:
        raise RuntimeError("a coroutine that runs has a task")
    for each in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(each, me.cancel)
    try:
        return await _run(settings, once, answered)
    except asyncio.CancelledError:
        return None


async def _run(
    settings: BenchSettings, once: bool, answered: Callable[[BenchResult], None]
) -> BenchResult | None:
    async with ServerClient(settings.server) as server:
        board = await asyncio.to_thread(facts.gather)
        me = await enrolment.enrolled(settings, server)
        access.let_in(me, server, "bench-worker")
        worker = BenchWorker(settings, server, me, board)
        failures = 0
        while True:
            wait = settings.poll_seconds
            try:
                result, wait = await worker.step()
                failures = 0
                if result is not None:
                    answered(result)
                    if once:
                        return result
            except ServiceError as error:
                failures += 1
                print(f"bench-worker: {error}", file=sys.stderr, flush=True)
                wait = max(wait, backoff_seconds(failures))
            await asyncio.sleep(wait * random.uniform(1 - _JITTER, 1 + _JITTER))  # noqa: S311
