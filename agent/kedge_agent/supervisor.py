"""Starts updater and runner and keeps both going; nothing outlives it."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path

from kedge_agent import limits, watchdog
from kedge_agent.children import clean_environment
from kedge_agent.commands.protocol import SOCKET
from kedge_agent.disk import write_whole
from kedge_agent.downloads import backoff_seconds
from kedge_agent.identity import sealer
from kedge_agent.local_protocol import STARTS_ENV
from kedge_agent.settings import AgentSettings, read_settings
from kedge_agent.slots import read_slots
from kedge_agent.specs import RunnerSettings, sinks_of, sources_of
from kedge_shared import wire
from kedge_shared.errors import InputError, ServiceError, StorageError
from kedge_shared.locks import locked

#: A process that ran so long was well; its next end is waited out shortly again, seconds.
_WELL_SECONDS = 60.0
_STOP_SECONDS = 4.0
#: How often the updater is asked whether it is there, and how many silences in a row are enough: a
#: slow disk may hold it for some.
_LOOK_SECONDS, _SILENCES = 60.0, 3
#: Exit status that a restart does not mend: bad input, no token.
_HOPELESS = frozenset({2})
#: A board that serves goes on serving; whoever looks after it may mend the rest meanwhile.
_HOPELESS_SECONDS = 60.0


class Child:
    """A process that is started again whenever it ends.

    Args:
        name: For people.
        command: What to start.
        env: Its environment; ``None`` is this process's. Starts in a row are added to it.
        may_end: Says whether the board may be given up when there is no mending it.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        env: dict[str, str] | None,
        may_end: Callable[[], bool],
    ) -> None:
        self._name, self._command, self._env, self._may_end = name, command, env, may_end
        self._process: asyncio.subprocess.Process | None = None
        self._stopping = asyncio.Event()

    async def keep(self) -> int:
        """Keeps it going until stopped; returns the status if it cannot be kept going."""
        failures = 0
        while not self._stopping.is_set():
            started = time.monotonic()
            self._process = await asyncio.create_subprocess_exec(
                *self._command,
                env={
                    **(self._env or os.environ),
                    STARTS_ENV: str(failures + 1),
                    limits.PARENT_ENV: str(os.getpid()),
                },
                # Ctrl-C at a terminal is for the supervisor, which ends both in order.
                start_new_session=True,
            )
            if self._stopping.is_set():  # while it was being started
                self._process.terminate()
            status = await self._process.wait()
            if self._stopping.is_set() or (status in _HOPELESS and self._may_end()):
                return status
            failures = 0 if time.monotonic() - started > _WELL_SECONDS else failures + 1
            print(f"agent: {self._name} ended ({status}), starting again", file=sys.stderr)
            shortly = 0 if failures <= 1 else backoff_seconds(failures)
            await self._pause(_HOPELESS_SECONDS if status in _HOPELESS else shortly)
        return 0

    async def _pause(self, seconds: float) -> None:
        with suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self._stopping.wait(), seconds)

    def kill(self) -> None:
        """Ends it by force; it is started again."""
        if self._process is not None:
            with suppress(ProcessLookupError):
                self._process.kill()

    async def stop(self) -> None:
        """Ends it: asks first, then by force."""
        self._stopping.set()
        process = self._process
        if process is None or process.returncode is not None:
            return
        with suppress(ProcessLookupError):
            process.terminate()
        try:
            await asyncio.wait_for(process.wait(), _STOP_SECONDS)
        except asyncio.TimeoutError:
            with suppress(ProcessLookupError):
                process.kill()
            await process.wait()


def write_runner_settings(settings: AgentSettings) -> Path:
    """Writes what the runner is told: no address, no token."""
    runner = RunnerSettings(
        state_dir=settings.state_dir,
        blobs=settings.blobs,
        socket=settings.socket,
        sources=sources_of(settings.source, Path()),
        sinks=sinks_of(settings.sink, Path()),
        threads=settings.threads,
        isolation=settings.isolation,
        sealer=sealer(settings.state_dir),
    )
    path, body = settings.state_dir / "runner.json", wire.encode(runner)
    # Written only when it changes: a board that starts on a full disk goes on serving.
    if not (path.is_file() and path.read_bytes() == body):
        write_whole(path, body)
    return path


async def supervise(config: Path) -> int:
    """Runs the agent of a configuration until told to stop; returns the exit status.

    Raises:
        InputError: The configuration cannot be used.
        ServiceError: Another agent runs on the state directory.
        StorageError: The state directory cannot be written.
    """
    settings = read_settings(config)
    _check(settings)
    # One after the other: parents that mkdir makes by itself are open to other users.
    _make(settings.state_dir)
    with ExitStack() as held:
        try:
            held.enter_context(locked(settings.state_dir, wait=False))
        except BlockingIOError:
            what = f"another agent runs on {settings.state_dir}"
            raise ServiceError(what, "stop it, or choose another state_dir") from None
        _make(settings.blobs)
        return await _keep(settings, config)


def _make(folder: Path) -> None:
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise StorageError(f"{folder} cannot be written: {error.strerror}") from None


async def _keep(settings: AgentSettings, config: Path) -> int:
    """Keeps runner and updater going until told to stop; returns the exit status."""

    def nothing_to_serve() -> bool:
        return read_slots(settings.state_dir).active is None

    runner_config = write_runner_settings(settings)
    children = [
        Child("runner", [sys.executable, "-m", "kedge_agent.runner", "--config",
                         str(runner_config)], clean_environment(), nothing_to_serve),
        Child("updater", [sys.executable, "-m", "kedge_agent.updater", "--config",
                          str(config.resolve())], None, nothing_to_serve),
    ]  # fmt: skip
    kept = [asyncio.ensure_future(each.keep()) for each in children]
    beside = [
        asyncio.ensure_future(_beat()),
        asyncio.ensure_future(_watch(children[1], settings.state_dir / SOCKET)),
    ]
    ended = asyncio.Event()
    for each in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(each, ended.set)
    waiting = asyncio.ensure_future(ended.wait())
    done, _ = await asyncio.wait([waiting, *kept], return_when=asyncio.FIRST_COMPLETED)
    for task in beside:
        task.cancel()
    watchdog.notify("STOPPING=1")
    await asyncio.gather(*(each.stop() for each in children))
    statuses = await asyncio.gather(*kept)
    waiting.cancel()
    return 0 if waiting in done else max(abs(each) for each in statuses)


async def _beat() -> None:
    """Tells systemd that the agent is up, and goes on telling; a board without it hears nothing."""
    watchdog.notify("READY=1")
    every = watchdog.interval_seconds()
    while every is not None:
        watchdog.notify("WATCHDOG=1")
        await asyncio.sleep(every)


async def _watch(
    updater: Child, desk: Path, every: float = _LOOK_SECONDS, patience: float = _LOOK_SECONDS
) -> None:
    """Starts an updater anew that lives and does nothing; a dead one is seen by :class:`Child`."""
    silent = 0
    while True:
        await asyncio.sleep(every)
        silent = silent + 1 if await _is_stuck(desk, patience) else 0
        if silent == _SILENCES:
            print("agent: updater does not answer, starting again", file=sys.stderr)
            updater.kill()
            silent = 0


async def _is_stuck(desk: Path, patience: float) -> bool:
    """Says whether a process listens at the desk and answers nothing."""
    try:
        reader, writer = await asyncio.open_unix_connection(str(desk))
    except OSError:
        return False  # not enrolled yet, or just starting
    try:
        writer.write(b"\n")
        return not await asyncio.wait_for(reader.readline(), patience)
    except asyncio.TimeoutError:
        return True
    except OSError:
        return False  # it ended meanwhile
    finally:
        writer.close()


def _check(settings: AgentSettings) -> None:
    # A camera or a stream that is not there may come; a file that is not there was mistyped.
    files = [each.path for each in sources_of(settings.source, Path())]
    named = [("source", path) for path in files] + [("pinned root", settings.root)]
    for what, path in named:
        if path is not None and not path.exists():
            raise InputError(f"{what} {path} is not there", "check the configuration")
