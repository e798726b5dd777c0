"""Builds a plan in a process behind the walls, at the pace that the live loop bears."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass

import msgspec

from kedge_agent import limits
from kedge_agent.blobs import VerifiedBlob
from kedge_agent.building.pacing import Pace
from kedge_agent.children import Left, clean_environment
from kedge_shared.errors import StorageError
from kedge_shared.plans import OnDevice

_LOOK_SECONDS = 0.5
_PLAN_LIMIT_BYTES = 4 * 1024**3


class NotBuilt(Exception):
    """There is no plan; one line.

    Attributes:
        harm: It is the model's fault, and trying again is of no use.
    """

    def __init__(self, why: str, *, harm: bool) -> None:
        super().__init__(why)
        self.harm = harm


class Held(Exception):
    """There is no plan yet, and nothing is to blame: the time for it is over; one line.

    Attributes:
        seconds: That the build had.
    """

    def __init__(self, why: str, seconds: float) -> None:
        super().__init__(
            f"the build of the plan was ended after {seconds:.0f} s and begins anew: {why}"
        )
        self.seconds = seconds


class Told(msgspec.Struct, frozen=True):
    """What the process says in the end (kedge_agent/gpu/plan_maker.py)."""

    ok: bool
    error: str = ""
    board: bool = False
    version: str = ""
    flags: tuple[str, ...] = ()
    memory_bytes: int = 0


@dataclass(frozen=True)
class Job:
    """What to build.

    Attributes:
        command: Starts the process.
        onnx: Signed, verified.
        cache: Timings, or ``None``.
        wanted: What the ONNX is, and what may be done with it.
        seconds: After them it is given up, standing still included.
    """

    command: Sequence[str]
    onnx: VerifiedBlob
    cache: VerifiedBlob | None
    wanted: OnDevice
    seconds: float


#: Tells the loop's frame time, milliseconds; 0 where there is none.
Look = Callable[[], Awaitable[float]]


#: Says why no build may run now; empty if it may.
Shut = Callable[[], str]


async def make(job: Job, pace: Pace, look: Look, shut: Shut) -> tuple[bytes, Told]:
    """Builds a plan.

    Args:
        job: What.
        pace: The loop before it.
        look: At the loop.
        shut: Asked beside it; its word ends the process.

    Returns:
        The plan, and what is told of it.

    Raises:
        NotBuilt: The model is not taken, the process died, or it took too long.
        Held: It may not go on now.
        StorageError: There is no memory to put it in.
    """
    with ExitStack() as closing:
        fd = _room(closing)
        left = await _run(job, fd, pace, look, shut)
        told = _read(left, job)
        size = os.lseek(fd, 0, os.SEEK_END)
        if not 0 < size <= _PLAN_LIMIT_BYTES:
            raise NotBuilt(f"the build ended with a plan of {size} bytes", harm=False)
        return os.pread(fd, size, 0), told


def _room(closing: ExitStack) -> int:
    try:
        fd = os.memfd_create("kedge plan", os.MFD_CLOEXEC)
    except OSError as error:
        raise StorageError(f"there is no memory for a plan: {error.strerror}") from None
    closing.callback(os.close, fd)
    return fd


def order(onnx: int, plan: int, wanted: OnDevice, cache: int = -1) -> bytes:
    """Returns what kedge_agent/gpu/plan_maker.py reads: the one place where that is written.

    Args:
        onnx: Descriptor of the signed ONNX.
        plan: Descriptor that the plan is written to.
        wanted: What the ONNX is, and what may be done with it.
        cache: Descriptor of timings, or -1.
    """
    return msgspec.json.encode(
        {"onnx": onnx, "plan": plan, "cache": cache, "int8": wanted.int8, "half": wanted.half}
    )


async def _run(job: Job, fd: int, pace: Pace, look: Look, shut: Shut) -> Left:
    cache = -1 if job.cache is None else job.cache.fd
    try:
        child = await asyncio.create_subprocess_exec(
            *job.command,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            pass_fds=[each for each in (job.onnx.fd, fd, cache) if each >= 0],
            env={**clean_environment(), limits.PARENT_ENV: str(os.getpid())},
        )
    except OSError as error:
        raise NotBuilt(f"no build can be started: {error.strerror}", harm=False) from None
    talk = asyncio.ensure_future(child.communicate(order(job.onnx.fd, fd, job.wanted, cache)))
    try:
        if not await _paced(child, talk, job.seconds, pace, look, shut):
            return Left(None, b"", b"")
        output, errors = await talk
        return Left(child.returncode or 0, output, errors)
    finally:
        with suppress(ProcessLookupError):
            child.kill()
        await child.wait()
        talk.cancel()


async def _paced(
    child: asyncio.subprocess.Process,
    talk: asyncio.Future[tuple[bytes, bytes]],
    seconds: float,
    pace: Pace,
    look: Look,
    shut: Shut,
) -> bool:
    """Stops and starts a build until it ends; says whether it did in time."""
    began = time.monotonic()
    while time.monotonic() < began + seconds:
        done, _ = await asyncio.wait([talk], timeout=_LOOK_SECONDS)
        if done:
            return True
        if why := shut():
            raise Held(why, time.monotonic() - began)
        after = pace.after(await look())
        if after.stands != pace.stands:
            with suppress(ProcessLookupError):
                child.send_signal(signal.SIGSTOP if after.stands else signal.SIGCONT)
        pace = after
    return False


def _read(left: Left, job: Job) -> Told:
    if left.status is None:
        raise NotBuilt(f"the build was not done in {job.seconds:.0f} s beside the loop", harm=False)
    if left.signal:
        # Also the model's doing, perhaps; but a kill for want of memory looks the same.
        raise NotBuilt(f"the build's process was ended by {left.signal}", harm=False)
    try:
        told = msgspec.json.decode(left.output, type=Told)
    except msgspec.MsgspecError:
        raise NotBuilt(
            f"the build ended with {left.status}: {left.last_words}", harm=False
        ) from None
    if not told.ok:
        raise NotBuilt(told.error, harm=not told.board)
    return told
