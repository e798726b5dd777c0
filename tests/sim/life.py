"""One life of a board on a disk whose power will go: the real updater over a simulated runner.

Forked from a warm server of :mod:`multiprocessing` per life, so that a cut costs no start of
Python. Everything that writes is the agent's own code. What was saved is told over a pipe at once.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import sqlite3
import struct
import sys
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import msgspec

from kedge_agent import facts, journal, tuf_metadata, update
from kedge_agent.journal import Journal
from kedge_agent.local_protocol import PreflightJob, PreflightResult, Slot
from kedge_agent.local_server import serve
from kedge_agent.patience import ProbationSettings, ShadowSettings
from kedge_agent.server_client import ServerClient
from kedge_agent.settings import AgentSettings
from kedge_agent.specs import SourceSpec
from kedge_agent.updater import Updater
from kedge_shared.errors import KedgeError
from tests.shared import samples
from tests.sim.board import GOOD
from tests.sim.runner import SimRunner

#: ext4: from now on nothing reaches the medium, the journal's log included.
_SHUTDOWN, _NO_LOG_FLUSH = 0x8004587D, 2
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT
_CHANGES = frozenset({"os.rename", "os.remove", "os.mkdir", "os.rmdir"})


@dataclass(frozen=True)
class Life:
    """What a board wakes up with.

    Attributes:
        disk: Where its file system is mounted.
        server: Address.
        root: The pinned root.
        name: In the fleet.
        token: To enrol with.
        active: What its runner serves.
        previous: What its runner keeps beside it.
        fell_back: Why its runner took the older engine.
        step: Step of a write at which the power goes; ``None`` is: when somebody else cuts it.
        kill: End by SIGKILL instead, and count only what gives a state or a file its place:
            commits of the journal and renames. The disk keeps what was written.
        log: Where its log goes.
    """

    disk: Path
    server: str
    root: Path
    name: str
    token: str
    active: Slot | None = None
    previous: Slot | None = None
    fell_back: str = ""
    step: int | None = None
    kill: bool = False
    log: Path = Path(os.devnull)

    @property
    def state_dir(self) -> Path:
        """The agent's."""
        return self.disk / "state"


class Saved(msgspec.Struct, frozen=True):
    """Told before and after something is saved.

    Attributes:
        what: ``state``, ``timestamp`` (version of the trusted metadata), ``steps`` so far, or
            ``error`` that ended the life.
        lasts: It was acknowledged: a cut must not take it back.
        body: It.
    """

    what: str
    lasts: bool
    body: str


def cut_power(disk: Path) -> None:
    """Takes the power from a mounted file system."""
    fd = os.open(disk, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.ioctl(fd, _SHUTDOWN, struct.pack("I", _NO_LOG_FLUSH))
    finally:
        os.close(fd)


class Fuse:
    """Counts the steps of everything that is written, and blows at one of them."""

    def __init__(self, life: Life) -> None:
        self._life, self.steps = life, 0

    def step(self) -> None:
        """Called before each step."""
        if self.steps == self._life.step:
            if not self._life.kill:
                cut_power(self._life.disk)
            os.kill(os.getpid(), 9)
        self.steps += 1

    def insert(self) -> None:
        """Puts it between the agent and its disk."""
        sys.addaudithook(self._heard)
        real_fsync = os.fsync

        def fsync(fd: Any) -> None:
            if self._life.kill:
                return  # it leaves the kernel's memory as it is: nothing to wait for
            self.step()
            real_fsync(fd)
            self.step()

        os.fsync = fsync
        real_connect = sqlite3.connect

        def connect(*arguments: Any, **options: Any) -> sqlite3.Connection:
            found: sqlite3.Connection = real_connect(*arguments, **options)
            found.set_trace_callback(self._executes)
            return found

        journal.sqlite3.connect = connect  # type: ignore[attr-defined]

    def _executes(self, statement: str) -> None:
        if statement == "COMMIT" or not self._life.kill:
            self.step()

    def _heard(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event not in _CHANGES and not (event == "open" and _writes(arguments[2])):
            return
        if self._life.kill and event != "os.rename":
            return
        path = arguments[0]
        if isinstance(path, (str, os.PathLike)) and str(path).startswith(str(self._life.disk)):
            self.step()


def _writes(flags: object) -> bool:
    return isinstance(flags, int) and bool(flags & _WRITES)


def live(life: Life, pipe: Connection) -> None:
    """Runs the updater until the power goes or somebody ends it."""
    fuse = Fuse(life)
    with life.log.open("ab") as log:
        os.dup2(log.fileno(), 2)

    def tell(what: str, lasts: bool, body: str) -> None:
        pipe.send_bytes(msgspec.json.encode(Saved(what, lasts, body)))

    _listen(tell)
    fuse.insert()
    try:
        asyncio.run(_updater(life, lambda: tell("steps", True, str(fuse.steps))))
    except KedgeError as error:
        tell("error", True, str(error))


def _listen(tell: Callable[[str, bool, str], None]) -> None:
    """Tells of every state and every timestamp before and after it is saved."""
    save, visit = Journal.save, tuf_metadata.TrustedMetadata._visit

    def saving(self: Journal, state: Any, report: Any = None) -> None:
        body = msgspec.json.encode(state).decode()
        tell("state", False, body)
        save(self, state, report)
        tell("state", True, body)

    def visiting(self: tuf_metadata.TrustedMetadata, work: Callable[[Any], Any]) -> Any:
        found = visit(self, work)
        tell("timestamp", True, str(self.proven()[0]))
        return found

    Journal.save = saving  # type: ignore[method-assign]
    tuf_metadata.TrustedMetadata._visit = visiting  # type: ignore[method-assign]

    async def preflight(_: PreflightJob, __: float) -> PreflightResult:
        return GOOD

    changes = {(update, "run_preflight"): preflight, (update, "_LOOK_SECONDS"): 0.02,
               (facts, "gather"): samples.facts}  # fmt: skip
    for (module, name), value in changes.items():
        setattr(module, name, value)


async def _updater(life: Life, beat: Callable[[], None]) -> None:
    settings = AgentSettings(
        server=life.server, root=life.root, state_dir=life.state_dir, device=life.name,
        device_class="x86-onnxruntime", source=SourceSpec(kind="video", path=Path("none.mp4")),
        tags={"board": life.name}, poll_seconds=0.2, disk_reserve_mb=0, telemetry_seconds=1,
        shadow=ShadowSettings(seconds=0.05),
        probation=ProbationSettings(seconds=0.05, max_seconds=900, min_frames=30),
    )  # fmt: skip
    os.environ["KEDGE_ENROL_TOKEN"] = life.token
    settings.state_dir.mkdir(mode=0o700, exist_ok=True)
    settings.socket.unlink(missing_ok=True)
    runner = SimRunner(active=life.active, previous=life.previous, fell_back=life.fell_back)
    async with ServerClient(settings.server) as server:
        updater = Updater(settings, server)
        listening = await serve(settings.socket, runner.handle)
        running = asyncio.ensure_future(updater.run())
        try:
            while not running.done():
                beat()
                await asyncio.wait({running}, timeout=0.1)
            running.result()
        finally:
            listening.close()
            updater.close()
