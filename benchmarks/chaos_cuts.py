"""Real power cuts: ext4 on a loop image, shut down without its log, mounted again."""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import random
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path

import msgspec

from benchmarks.chaos_board import Record, Whole, check_journal, examine
from benchmarks.chaos_fleet import Operator, fleet
from kedge_agent.blobs import BlobStore
from kedge_agent.detector import Detector
from kedge_agent.local_protocol import Slot
from kedge_agent.runtimes.registry import RUNTIMES
from kedge_agent.slots import read_slots
from kedge_agent.start import CRASH_LOOP, Begun, Starts, load_at_start
from kedge_agent.state import State, read_state
from kedge_shared.phases import TERMINAL, Phase
from tests.sim.life import Life, Saved, cut_power, live

_IMAGE_MB = 48
#: Cuts after which a new board takes the place of the old one: enrolment and the first engine are
#: cut too.
_LIVES = 30
#: Share of the cuts that fall between two steps of a write; the rest fall at any moment.
_AT_STEPS = 0.75
_LONGEST_LIFE = 1.2
#: Without a new state.
_PATIENCE_SECONDS = 120.0
#: Steps that the life of a board has until its first engine is confirmed, about.
_STEPS = 420
_MOST_STRAYED = 3
_libc = ctypes.CDLL(None, use_errno=True)


class Disk:
    """An ext4 image that can be mounted, cut and mounted again.

    Args:
        home: For the image and the mount point.
    """

    def __init__(self, home: Path) -> None:
        image, self.at = home / "disk.img", home / "disk"
        self.at.mkdir()
        with image.open("wb") as file:
            file.truncate(_IMAGE_MB * 2**20)
        # One loop device for all mounts: another might still write what a cut has left in memory.
        self._loop = _run("losetup", "--find", "--show", str(image))
        self._mounted = False

    def format(self) -> None:
        """Makes it empty."""
        self.unmount()
        _run("mkfs.ext4", "-q", "-F", self._loop)
        self.mount()

    def mount(self) -> None:
        """Mounts it; ext4 replays what reached its log."""
        where = os.fsencode(self.at)
        if _libc.mount(self._loop.encode(), where, b"ext4", 0, None) != 0:
            raise OSError(ctypes.get_errno(), "the image cannot be mounted")
        self._mounted = True

    def close(self) -> None:
        """Gives mount and loop device back."""
        self.unmount()
        _run("losetup", "--detach", self._loop)

    def unmount(self) -> None:
        """Unmounts it; whoever had files open on it must have ended."""
        until = time.monotonic() + 5
        while self._mounted and _libc.umount2(os.fsencode(self.at), 0) != 0:
            if time.monotonic() > until:
                _run("umount", "-l", str(self.at))
                break
            time.sleep(0.01)
        self._mounted = False


@dataclass
class Board:
    """What is known of the board besides its disk.

    Attributes:
        name: In the fleet.
        token: To enrol with.
        served: It had an engine at some time.
        saved: State that was acknowledged last, and those that were being saved after it.
        timestamp: Newest version of the metadata that was acknowledged.
        uncut: Its next life must not be cut.
        lives: Cuts so far.
        strayed: Lives that ended by themselves.
    """

    name: str
    token: str
    served: bool = False
    saved: list[State] = field(default_factory=lambda: [State()])
    timestamp: int = 0
    uncut: bool = False
    lives: int = 0
    strayed: int = 0


class Cuts:
    """One board after the other, on one disk.

    Args:
        disk: It.
        operator: Keeps the boards busy.
        whole: What need not be sent again.
        record: Takes what is found.
        seed: Of the moments.
    """

    def __init__(
        self, disk: Disk, operator: Operator, whole: Whole, record: Record, seed: int
    ) -> None:
        self._disk, self._operator, self._whole, self._record = disk, operator, whole, record
        self._log = disk.at.with_name("board.log")
        self._rng = random.Random(seed)
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload(["tests.sim.life"])
        self._boards, self._moment = 0, ""
        self._board = self._another()

    def run(self) -> None:
        """Cuts as often as planned, checks after each, and lets the last update end."""
        record = self._record
        while record.done < record.planned:
            if self._board.lives >= _LIVES:
                self._finish()
                self._board = self._another()
            before = record.done
            self._live()
            if record.done > before:
                record.show()
        self._finish()

    def _another(self) -> Board:
        self._disk.format()
        self._boards += 1
        name = f"board-{self._boards}"
        self._operator.give_up()
        self._operator.board = name
        self._whole.settle(self._disk.at / "state")
        return Board(name, self._operator.token())

    def _finish(self) -> None:
        """Lets the board come to rest without another cut."""
        self._board.uncut = True
        self._live()

    def _live(self) -> None:
        """Lets the board live until the power goes, or until it rests if it is not to be cut."""
        board, rng = self._board, self._rng
        began = time.monotonic()
        at_step = not board.uncut and rng.random() < _AT_STEPS
        begun = self._wake()
        life = Life(
            disk=self._disk.at, server=self._operator.world.url,
            root=self._operator.world.trust.root, name=board.name, token=board.token,
            step=rng.randrange(_STEPS) if at_step else None, active=_slot(begun.active),
            previous=_slot(begun.previous), fell_back=begun.fell_back,
            log=self._log,
        )  # fmt: skip
        self._record.recoveries.append(time.monotonic() - began)
        self._moment = "at any moment" if life.step is None else f"at step {life.step}"
        with self._alive(life) as (process, pipe):
            soon = time.monotonic() + rng.uniform(0, _LONGEST_LIFE)
            rested = self._follow(process, pipe, None if at_step or board.uncut else soon)
        if not rested:
            self._record.done += 1
            board.lives += 1
            self._after_a_cut()
        board.uncut = False if rested else board.uncut

    def _wake(self) -> Begun:
        """Starts what the board would serve, by the runner's own code and a real runtime."""
        state_dir = self._disk.at / "state"
        store = BlobStore(state_dir / "blobs")
        begun = load_at_start(state_dir, read_slots(state_dir), store, RUNTIMES, 1)
        if self._board.served and begun.active is None:
            self._record.note("engine", "nothing can be served after the cut")
        if begun.fell_back:
            self._record.note("engine", f"the older engine had to be taken: {begun.fell_back}")
        for each in (begun.active, begun.previous):
            if each is not None:
                each.close()
        return begun

    @contextmanager
    def _alive(self, life: Life) -> Iterator[tuple[BaseProcess, Connection]]:
        ours, theirs = self._context.Pipe(duplex=False)
        process = self._context.Process(target=live, args=(life, theirs))
        process.start()
        theirs.close()
        try:
            yield process, ours
        finally:
            if process.is_alive():
                process.kill()
            process.join()
            self._hear(ours)
            ours.close()

    def _follow(self, process: BaseProcess, pipe: Connection, cut_at: float | None) -> bool:
        """Keeps the board busy until the power goes; says whether it rests instead."""
        board, until = self._board, time.monotonic() + _PATIENCE_SECONDS
        resting = board.uncut
        while process.is_alive():
            if self._hear(pipe):
                until = time.monotonic() + _PATIENCE_SECONDS
            if cut_at is not None and time.monotonic() >= cut_at:
                cut_power(self._disk.at)
                return False
            if self._keep_busy(go_on=not resting) and resting:
                return True
            if time.monotonic() > until:
                self._record.note("stuck", f"no end of {board.saved[-1:]}\n{self._tail()}")
                self._operator.give_up()
                return resting
            time.sleep(0.01)
        if process.exitcode != -9:
            self._renew()
            return True
        return False

    def _keep_busy(self, *, go_on: bool) -> bool:
        """Begins the next rollout when the last one has ended; says whether it has."""
        operator, board = self._operator, self._board
        state = board.saved[-1]
        if state.deployment is None:
            if not operator.rollout and self._is_enrolled():
                operator.go_on()
            return False
        if state.deployment.phase not in TERMINAL:
            return False
        if operator.ended():
            board.served = True
            self._record.updates += 1
            if go_on:
                operator.go_on()
            return True
        failed = operator.failed()
        if failed is not None and failed.id == state.deployment.id:
            if failed.verdict.cause != "environment":
                self._record.note("blamed", f"{failed.phase.value}: {failed.verdict}")
            self._record.retried += 1
            operator.retry()
        return False

    def _is_enrolled(self) -> bool:
        return any(each.id == self._board.name for each in self._operator.world.operator.devices())

    def _tail(self) -> str:
        return self._log.read_text(errors="replace")[-2000:]

    def _renew(self) -> None:
        """The updater gave up: it has lost its way into the fleet."""
        self._board.token = self._operator.token()
        self._board.strayed += 1
        if self._board.strayed > _MOST_STRAYED:
            self._board = self._another()

    def _after_a_cut(self) -> None:
        disk, board, record = self._disk, self._board, self._record
        disk.unmount()
        disk.mount()
        state_dir = disk.at / "state"
        record.again += self._whole.settle(state_dir)
        if wrong := check_journal(state_dir):
            record.note("state", wrong)
        state = examine(state_dir, self._operator.signed, record)
        if state not in board.saved:
            record.note("forgotten", f"saved {_brief(board.saved[0])}, found {_brief(state)} "
                                     f"({self._moment})")  # fmt: skip
        board.saved = [state]
        version = _timestamp(state_dir)
        if version < board.timestamp:
            record.note("forgotten", f"timestamp {board.timestamp} was trusted, found {version}")
        board.timestamp = version
        board.uncut = _nearly_a_loop(state_dir, state)

    def _hear(self, pipe: Connection) -> bool:
        """Takes in what the board has told; says whether it has got on."""
        board, before = self._board, self._board.saved
        # A life that ends in the midst of a word leaves half of it.
        with suppress(EOFError, OSError):
            while pipe.poll():
                self._take(board, msgspec.json.decode(pipe.recv_bytes(), type=Saved))
        return board.saved is not before

    def _take(self, board: Board, line: Saved) -> None:
        if line.what == "timestamp":
            board.timestamp = max(board.timestamp, int(line.body))
        elif line.what == "state":
            state = read_state(line.body.encode())
            # While it is being saved, a cut may leave either.
            board.saved = [state] if line.lasts else [*board.saved, state]
            if state.deployment is not None and state.deployment.phase is Phase.CONFIRMED:
                self._record.again += self._whole.swept()
        elif line.what == "error":
            self._record.note("token" if "enrolment" in line.body else "stuck", line.body)


def _slot(detector: Detector | None) -> Slot | None:
    return detector.slot if detector is not None else None


def _timestamp(state_dir: Path) -> int:
    from tuf.api.metadata import Metadata, Timestamp

    path = state_dir / "tuf" / "metadata" / "timestamp.json"
    try:
        return Metadata[Timestamp].from_file(str(path)).signed.version
    # Boundary: python-tuf raises what it likes over torn files.
    except Exception:  # noqa: BLE001
        return 0


def _nearly_a_loop(state_dir: Path, state: State) -> bool:
    """Says whether one cut more would rightly be taken for a crash loop."""
    if state.deployment is None or state.deployment.phase is not Phase.PROBATION:
        return False
    try:
        starts = msgspec.json.decode((state_dir / "runner-starts.json").read_bytes(), type=Starts)
    except (OSError, msgspec.MsgspecError):
        return False
    return starts.deployment == state.deployment.id and starts.count >= CRASH_LOOP - 2


def _brief(state: State) -> str:
    deployment = state.deployment
    return f"{deployment.id} in {deployment.phase.value}" if deployment else "nothing"


def _run(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def why_not() -> str:
    """Says why this machine cannot cut power; empty if it can."""
    if os.geteuid() != 0:
        return "needs root"
    if not Path("/dev/loop-control").exists():
        return "needs loop devices"
    return ""


def run(home: Path, record: Record, seed: int) -> None:
    """Runs the trial; what was found until an interruption is in the record."""
    with fleet(home) as (operator, traffic):
        disk = Disk(home)
        try:
            Cuts(disk, operator, Whole(traffic), record, seed).run()
        finally:
            disk.close()
