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
from collections.abc import Callable
from pathlib import Path

import msgspec

from kedge_agent import access, enrolment, limits, metrics
from kedge_agent.commands.desk import Desk
from kedge_agent.commands.orders import Orders
from kedge_agent.commands.protocol import SOCKET
from kedge_agent.decisions import resumed
from kedge_agent.intake import Intake
from kedge_agent.journal import Journal
from kedge_agent.network.backoff import Meaning, meaning, next_poll
from kedge_agent.server_client import ServerClient
from kedge_agent.settings import AgentSettings, read_settings
from kedge_agent.state import State
from kedge_agent.update import Update
from kedge_agent.wiring import make_board
from kedge_shared.errors import InputError, KedgeError, ServiceError, StorageError, TrustError
from kedge_shared.phases import TERMINAL, Phase

#: Share of the interval by which polls are spread.
_JITTER = 0.1
_SNAPSHOT_SECONDS = 5.0
#: In these an update asks the server; the others go on without it.
_FETCHING = frozenset({Phase.DOWNLOADING, Phase.VERIFYING})


class _Rung(Exception):
    """Somebody at the board wants something: what is at hand is put down."""


class Updater:
    """One board's updater.

    Args:
        settings: Configuration.
        server: Connection.
        clock: Tells Unix seconds, by this board.
    """

    def __init__(
        self,
        settings: AgentSettings,
        server: ServerClient,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._settings, self._server, self._clock = settings, server, clock
        self._open = contextlib.ExitStack()
        self._journal = Journal(settings.state_dir)
        self._open.callback(self._journal.close)
        self._etag = ""
        self._failures, self._turned = 0, False
        #: Failures of the download at hand, and when it is taken up again.
        self._stalls, self._not_before = 0, 0.0
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
        me = self._identity = await enrolment.enrolled(self._settings, self._server)
        access.let_in(me, self._server, "updater")
        self._board = make_board(
            self._settings, self._server, self._journal, me, self._send_quietly, self._clock,
            self._open,
        )  # fmt: skip
        self._intake = Intake(self._board)
        self._orders = Orders(self._board, self._drive)
        self._desk = Desk(self._orders.declines)
        self._resume()
        self._tell_facts()
        self._show_metrics()
        await self._listen()
        while not self._may_change_key():
            await self._rest(await self._turn())
            await self._obey()

    def _may_change_key(self) -> bool:
        """Says whether to end, to be started anew with another key: the server is there."""
        if self._failures or not self._turned or not self._is_idle():
            return False
        return access.wants_key_change(self._settings.state_dir)

    def _is_idle(self) -> bool:
        deployment = self._journal.state.deployment
        return deployment is None or deployment.phase in TERMINAL | {Phase.IDLE}

    def _asks_server(self) -> bool:
        deployment = self._journal.state.deployment
        return deployment is not None and deployment.phase in _FETCHING

    async def _turn(self) -> float:
        """Does everything there is to do once; returns how long to rest after it."""
        wait = self._settings.poll_seconds
        try:
            await self._go_on()
            wait = await self._poll() or wait
            await self._telemetry()
            await self._board.reporter.send(self._server, self._identity)
        except _Rung:
            return 0.0
        except KedgeError as error:
            self._failures += 1
            self._board.log(str(error))
            return _pause(error, wait, self._failures)
        self._failures, self._turned = 0, True
        return wait * random.uniform(1 - _JITTER, 1 + _JITTER)  # noqa: S311

    async def _rest(self, seconds: float) -> None:
        """Waits so long, or until somebody rings; what the turn has used goes back before."""
        limits.give_memory_back()
        ringing = asyncio.ensure_future(self._desk.rung.wait())
        try:
            await asyncio.wait({ringing}, timeout=seconds)
        finally:
            ringing.cancel()

    async def _obey(self) -> None:
        while (pending := self._desk.take()) is not None:
            with contextlib.suppress(_Rung):
                await self._orders.obey(*pending)

    async def _drive(self, update: Update) -> None:
        """Drives an update until it is final or waits for its window.

        Raises:
            _Rung: Somebody rang; the update stands where it stood, as after a crash.
            ServiceError: The server went away while downloading; the phase stays.
        """
        driving = asyncio.ensure_future(update.drive())
        ringing = asyncio.ensure_future(self._desk.rung.wait())
        try:
            await asyncio.wait({driving, ringing}, return_when=asyncio.FIRST_COMPLETED)
            if not driving.done():
                raise _Rung
            driving.result()
        finally:
            ringing.cancel()
            # Again and again: libraries below may lose one cancellation (cpython issue 86296).
            while not driving.done():
                driving.cancel()
                await asyncio.wait({driving}, timeout=1)

    async def _listen(self) -> None:
        """Opens the desk; a disk that holds no socket is no reason not to update."""
        try:
            server = await self._desk.serve(self._settings.state_dir / SOCKET)
            self._open.callback(server.close)
        except StorageError as error:
            self._board.log(str(error))

    def _tell_facts(self) -> None:
        """Tells the server what the board is, where that has changed since it was told."""
        try:
            self._journal.tell_facts(self._board.facts, self._board.reporter.about(self.state))
        except StorageError as error:
            self._board.log(str(error))

    def _show_metrics(self) -> None:
        """Answers Prometheus from now on, where the board's configuration asks for it."""
        wanted, loop, board = self._settings.metrics, asyncio.get_running_loop(), self._board
        if wanted is None:
            return

        def snapshot() -> metrics.Snapshot:
            asked = board.reporter.snapshot(board.runner)
            return asyncio.run_coroutine_threadsafe(asked, loop).result(_SNAPSHOT_SECONDS)

        try:
            self._open.callback(metrics.serve(wanted, snapshot))
        except InputError as error:
            # A port that is taken is no reason not to update.
            board.log(str(error))

    def _resume(self) -> None:
        """Stands where the table says after a start, whatever the last one ended in."""
        self._stand()
        self._journal.show_slots()

    def _stand(self) -> None:
        """Puts a deployment where a step that was not finished may be taken again.

        Not only after a start: a disk that is full when a step's end is to be saved leaves it
        unfinished too, and a swap that was made must not be asked for twice.
        """
        state = self._journal.state
        if state.deployment is not None:
            after = resumed(state.deployment)
            if after is not state.deployment:
                following = msgspec.structs.replace(state, deployment=after)
                self._journal.save(following, self._board.reporter.about(following))

    async def _go_on(self) -> None:
        """Takes up what a crash or an unreachable server interrupted.

        While it downloads, a server in trouble must not keep newer assignments from being seen.
        """
        self._stand()
        if self._is_idle():
            return
        if time.monotonic() < self._not_before:
            return
        try:
            if self._asks_server():
                # After a start nothing has asked for a token yet, and metadata comes before a poll.
                await self._server.renew_access()
            await self._drive(Update(self._board))
            self._stalls = 0
        except ServiceError as error:
            self._stalls += 1
            pause = _pause(error, self._settings.poll_seconds, self._stalls)
            self._not_before = time.monotonic() + pause
            self._board.log(str(error))

    async def _poll(self) -> float | None:
        """Asks for news and takes up what it brings; returns when to ask again."""
        result = await self._server.poll(self._etag, self._journal.state.counter)
        if result.answer is not None and result.answer.assignment is not None:
            accepted = await self._intake.accept(result.answer.assignment, self._board.repository)
            if accepted is not None:
                self._stalls, self._not_before = 0, 0.0
                await self._send_quietly()
                await self._drive(Update(self._board))
        # Only now: news that could not be taken up is asked for again.
        self._etag = result.etag
        return result.next_seconds

    async def _telemetry(self) -> None:
        if time.monotonic() - self._last_window < self._settings.telemetry_seconds:
            return
        self._last_window = time.monotonic()
        try:
            await self._board.reporter.collect(self._board.runner)
        except StorageError as error:
            # A full disk loses this window; what was queued before it is still sent.
            self._board.log(str(error))

    async def _send_quietly(self) -> None:
        """Sends what waits if the server is there; offline, everything goes on without it."""
        with contextlib.suppress(KedgeError):
            await self._board.reporter.send(self._server, self._identity)


def _pause(error: KedgeError, interval: float, failures: int) -> float:
    """Returns how long to leave the server alone after an error."""
    means: Meaning = "refused" if isinstance(error, TrustError) else "busy"
    after = None
    if isinstance(error, ServiceError):
        means, after = meaning(error.status), error.retry_after
    return next_poll(interval, failures, means, random.random(), after)  # noqa: S311


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
