"""The updater: polls, verifies, decides, reports. ``python -m kedge_agent.updater --config FILE``.

It imports no runtime: what an engine does to a process it does to the runner or the child.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import random
import signal
import sys
import time
from pathlib import Path
from typing import Any

import msgspec
from securesystemslib.signer import Key

from kedge_agent import enrolment, facts, limits
from kedge_agent.blobs import BlobStore
from kedge_agent.board import Board
from kedge_agent.decisions import resumed
from kedge_agent.downloads import Downloader, backoff_seconds
from kedge_agent.identity import Identity
from kedge_agent.journal import Journal
from kedge_agent.local_client import RunnerLink
from kedge_agent.reporting import Reporter
from kedge_agent.server_client import ServerClient
from kedge_agent.settings import AgentSettings, read_settings
from kedge_agent.state import Deployment, State
from kedge_agent.tuf_client import ImageRepository
from kedge_agent.update import Update
from kedge_shared import signing
from kedge_shared.errors import KedgeError, ServiceError, TrustError
from kedge_shared.phases import TERMINAL, Event, Phase, advance
from kedge_shared.protocol import ASSIGNMENT_LIMIT_BYTES, ASSIGNMENT_TYPE, Assignment, Verdict
from kedge_shared.trust import Pinned, Seen, check_assignment

#: Share of the interval by which polls are spread.
_JITTER = 0.1


class Updater:
    """One board's updater.

    Args:
        settings: Configuration.
        server: Connection.
    """

    def __init__(self, settings: AgentSettings, server: ServerClient) -> None:
        self._settings, self._server = settings, server
        self._open = contextlib.ExitStack()
        self._journal = Journal(settings.state_dir)
        self._open.callback(self._journal.close)
        self._etag = ""
        self._failures = 0
        self._director: tuple[int, Key] | None = None
        self._last_window = time.monotonic()

    @property
    def state(self) -> State:
        """What the board remembers now."""
        return self._journal.state

    def close(self) -> None:
        """Closes journal and connections; call it after :meth:`run` has ended."""
        self._open.close()

    async def run(self) -> None:
        """Runs until cancelled."""
        me = await enrolment.enrolled(self._settings, self._server)
        self._server.authorise(me.token)
        self._board = self._make_board(me)
        self._identity = me
        self._resume()
        while True:
            wait = self._settings.poll_seconds
            try:
                await self._go_on()
                wait = await self._poll() or wait
                await self._telemetry()
                await self._board.reporter.send(self._server, me)
                self._failures = 0
            except KedgeError as error:
                self._failures += 1
                self._board.log(str(error))
                wait = max(min(wait, 5.0), backoff_seconds(self._failures))
            await asyncio.sleep(wait * random.uniform(1 - _JITTER, 1 + _JITTER))  # noqa: S311

    def _make_board(self, me: Identity) -> Board:
        settings, journal = self._settings, self._journal
        store = BlobStore(settings.blobs)
        repository = ImageRepository(
            self._server.base, me.token, settings.state_dir / "tuf", settings.root,
            newest=lambda: journal.state.newest_time,
        )  # fmt: skip
        self._open.callback(repository.close)
        return Board(
            settings=settings,
            journal=journal,
            store=store,
            repository=repository,
            downloader=Downloader(
                self._server.http, store, settings.state_dir / "partial", self._count
            ),
            runner=RunnerLink(settings.socket),
            reporter=Reporter(settings, journal, journal.name),
            pinned=Pinned(
                device=me.device,
                key_id=me.signer.public_key.keyid,
                device_class=settings.device_class,
                models=settings.models,
                workload=settings.workload,
            ),
            facts=facts.gather(),
            send_reports=self._send_quietly,
        )

    def _resume(self) -> None:
        """Stands where the table says after a start, whatever the last one ended in."""
        state = self._journal.state
        if state.deployment is not None:
            after = resumed(state.deployment)
            if after is not state.deployment:
                following = msgspec.structs.replace(state, deployment=after)
                self._journal.save(following, self._board.reporter.about(following))
        self._journal.show_slots()

    async def _go_on(self) -> None:
        """Takes up what a crash or an unreachable server interrupted.

        While it downloads, a server in trouble must not keep newer assignments from being seen.
        """
        deployment = self._journal.state.deployment
        if deployment is None or deployment.phase in TERMINAL | {Phase.IDLE}:
            return
        try:
            await Update(self._board).drive()
        except ServiceError as error:
            self._board.log(str(error))

    async def _poll(self) -> float | None:
        """Asks for news and takes up what it brings; returns when to ask again."""
        result = await self._server.poll(self._etag, self._journal.state.counter)
        if result.answer is not None and result.answer.assignment is not None:
            await self._consider(result.answer.assignment)
        # Only now: news that could not be taken up is asked for again.
        self._etag = result.etag
        return result.next_seconds

    async def _consider(self, envelope: dict[str, Any]) -> None:
        """Verifies an assignment and drives what it asks for.

        Raises:
            TrustError: It is not one this board may follow; it goes on as it was.
        """
        epoch, key = await self._director_key(envelope)
        assignment = signing.unseal(
            envelope, ASSIGNMENT_TYPE, Assignment, key, limit_bytes=ASSIGNMENT_LIMIT_BYTES
        )
        state = self._journal.state
        now = max(int(time.time()), state.newest_time)
        seen = Seen(epoch=max(state.epoch, epoch), counter=state.counter)
        check_assignment(assignment, self._board.pinned, seen, now)
        accepted = msgspec.structs.replace(
            state, epoch=assignment.epoch, counter=assignment.counter, accepted=envelope,
            newest_time=max(state.newest_time, assignment.issued),
        )  # fmt: skip
        known = state.deployment is not None and state.deployment.id == assignment.deployment
        if assignment.manifest is None or assignment.intent == "hold" or known:
            self._journal.save(accepted)
            return
        self._begin(assignment, accepted)
        await self._send_quietly()
        await Update(self._board).drive()

    def _begin(self, assignment: Assignment, state: State) -> None:
        manifest = assignment.manifest
        if manifest is None:
            raise RuntimeError("an assignment to install names a build")
        deployment = Deployment(
            id=assignment.deployment,
            rollout=assignment.rollout,
            intent=assignment.intent,
            manifest=manifest,
            counter=assignment.counter,
            retry=assignment.retry_of is not None,
        )
        phase = advance(Phase.IDLE, Event.ASSIGNED)
        if state.active is not None and state.active.manifest == manifest.sha256:
            # It runs already and was confirmed: that is the proof, nothing is done again.
            deployment = msgspec.structs.replace(
                deployment, slot=state.active, release=state.active.release,
                verdict=Verdict(code="ok", reason="runs already"),
            )  # fmt: skip
            phase = Phase.CONFIRMED
        deployment = msgspec.structs.replace(deployment, phase=phase)
        following = msgspec.structs.replace(state, deployment=deployment)
        self._journal.save(following, self._board.reporter.about(following))
        self._board.log(f"{assignment.intent} {manifest.path} ({assignment.deployment})")

    async def _director_key(self, envelope: dict[str, Any]) -> tuple[int, Key]:
        """Returns the key that may assign; asks the image repository again when it is another."""
        wanted = {
            each.get("keyid") for each in envelope.get("signatures", []) if isinstance(each, dict)
        }
        if self._director is None or self._director[1].keyid not in wanted:
            self._director = await asyncio.to_thread(self._fetch_director)
        return self._director

    def _fetch_director(self) -> tuple[int, Key]:
        repository, store = self._board.repository, self._board.store
        repository.refresh()
        director = repository.director(store.root)
        if director.epoch < self._journal.state.epoch:
            raise TrustError("rollback", f"director of epoch {director.epoch} is an older one")
        return director.epoch, signing.key_from_dict(dict(director.key))

    async def _telemetry(self) -> None:
        if time.monotonic() - self._last_window >= self._settings.telemetry_seconds:
            self._last_window = time.monotonic()
            await self._board.reporter.collect(self._board.runner)

    async def _send_quietly(self) -> None:
        """Sends what waits if the server is there; offline, everything goes on without it."""
        with contextlib.suppress(KedgeError):
            await self._board.reporter.send(self._server, self._identity)

    def _count(self, count: int) -> None:
        state = self._journal.state
        self._journal.state = msgspec.structs.replace(
            state, bytes_downloaded=state.bytes_downloaded + count
        )


async def _main(settings: AgentSettings) -> None:
    async with ServerClient(settings.server) as server:
        updater = Updater(settings, server)
        task = asyncio.ensure_future(updater.run())
        for each in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(each, task.cancel)
        try:
            with contextlib.suppress(asyncio.CancelledError):
                await task
        finally:
            updater.close()


def main() -> None:
    """Starts the updater."""
    parser = argparse.ArgumentParser(prog="kedge_agent.updater")
    parser.add_argument("--config", type=Path, required=True)
    options = parser.parse_args()
    limits.die_with_parent()
    try:
        asyncio.run(_main(read_settings(options.config)))
    except KedgeError as error:
        print(f"updater: {error}", file=sys.stderr)
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
