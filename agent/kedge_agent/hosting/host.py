"""The runner's side of an engine in a process of its own: the engine port over a socket.

Whatever becomes of that process, a crash, a hang, a kill for want of memory, comes out of
:meth:`HostedEngine.infer` as an error of the engine, and the older one answers that very frame.
"""

from __future__ import annotations

import fcntl
import math
import mmap
import os
import signal
import socket
import statistics
import subprocess
import sys
import time
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np

from kedge_agent import limits
from kedge_agent.blobs import VerifiedBlob
from kedge_agent.errors import EngineError, EngineGone, EngineKilled, EngineLate
from kedge_agent.hosting import wire
from kedge_agent.hosting.process import Host
from kedge_agent.hosting.wire import HostedFile, Message, Order
from kedge_agent.runtimes.base import EngineSpec
from kedge_shared.detections import Array
from kedge_shared.manifest import FileRole

#: An engine that has not loaded, or not answered a frame, for so long hangs; the second lies
#: under what the loop's own watchdog allows.
LOAD_SECONDS = 120.0
HANG_SECONDS = 5.0
#: A frame that takes so many times the usual is late: the older engine answers it, if there is
#: one. Fewer frames than that say nothing of what is usual.
_LATE, _LEAST_LATE_SECONDS, _USUAL_FRAMES = 3.0, 0.02, 8
_CHANNELS, _FLOAT_BYTES = 3, 4
#: Address space, not memory: only what an output fills is taken.
_OUTPUT_BYTES = 64 * 2**20
_CLOSE_SECONDS = 2.0
_SEALS = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW
#: Kedge's own, in this very Python.
_HOST = Host((sys.executable, "-m", "kedge_agent.hosting.child"))


class HostedEngine:
    """An engine in a process of its own.

    Args:
        runtime: As in manifests.
        blobs: Of the engine; the process inherits them, sealed as they are.
        spec: What the engine is fed, and how it is read.
        threads: Threads it may use.
        memory_mb: Memory that the process may use, MiB; 0 is no limit.
        skip: Bytes at the beginning of the engine's file that are not the engine.
        lean: Library that loads a plan of an older release, or empty.
        host: Starts the process.

    Raises:
        EngineError: It does not load, or its process dies of it.
        EngineKilled: Its process was ended while it loaded, for want of memory.
        MemoryError: There is not enough for it.
    """

    def __init__(
        self,
        runtime: str,
        blobs: Mapping[FileRole, VerifiedBlob],
        spec: EngineSpec,
        *,
        threads: int,
        memory_mb: float = 0.0,
        skip: int = 0,
        lean: str = "",
        host: Host = _HOST,
    ) -> None:
        given, read = spec.input, spec.output
        self._input_bytes = _CHANNELS * given.height * given.width * _FLOAT_BYTES
        order = Order(
            runtime=runtime, threads=threads, memory_mb=memory_mb, skip=skip, lean=lean,
            input_bytes=self._input_bytes, output_bytes=_OUTPUT_BYTES,
            shape=(1, _CHANNELS, given.height, given.width), input=given,
            # A message is short, and ten thousand names are not.
            output=replace(read, classes=("",) * len(read.classes)),
            files=tuple(_hosted(role, blob) for role, blob in blobs.items()),
        )  # fmt: skip
        self._number, self._late_since, self._memory_bytes, self._ended = 0, 0.0, 0, ""
        self._took: deque[float] = deque(maxlen=32)
        fd = _shared_memory(self._input_bytes + _OUTPUT_BYTES)
        try:
            self._memory = np.frombuffer(
                mmap.mmap(fd, self._input_bytes + _OUTPUT_BYTES), dtype=np.float32
            )
            started = host.start()
            self._talk, self._process = started.talk, started.process
            try:
                self._load(order, [fd, *(each.fd for each in blobs.values())])
            except BaseException:
                self.close()
                raise
        finally:
            os.close(fd)

    @property
    def pid(self) -> int:
        """Of the process."""
        return self._process.pid

    @property
    def memory_mb(self) -> float:
        """Memory of the GPU that the engine takes, MiB; 0 where its host does not say."""
        return self._memory_bytes / 2**20

    def infer(self, batch: Array) -> Array:
        """Runs one batch, as long as it takes up to a hang.

        Raises:
            EngineGone: The process died, or hung and was ended.
            EngineError: The engine failed on this frame; the process lives.
        """
        if self._late_since:
            self._receive(HANG_SECONDS)  # of the frame that was given up
        self._send(batch)
        return self._receive(HANG_SECONDS)

    def infer_in_time(self, batch: Array) -> Array:
        """Runs one batch, if it is done about as quickly as usual.

        Raises:
            EngineLate: It is not done yet, or still at an earlier one.
            EngineError: As for :meth:`infer`.
        """
        if self._late_since:
            self._receive(0.0)
        self._send(batch)
        return self._receive(self._usual())

    def close(self) -> None:
        """Ends the process and gives the memory back."""
        with suppress(OSError):
            self._talk.shutdown(socket.SHUT_RDWR)
        self._talk.close()
        try:
            self._process.wait(_CLOSE_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._memory = np.zeros(0, dtype=np.float32)

    def _load(self, order: Order, fds: Sequence[int]) -> None:
        said = wire.pack(Message(wire.LOAD, 0, msgspec.json.encode(order)))
        try:
            socket.send_fds(self._talk, [said], fds)
        except OSError:
            raise self._gone() from None
        self._talk.settimeout(LOAD_SECONDS)
        try:
            self._understand(self._hear())
        except TimeoutError:
            raise self._end(f"engine hangs: not loaded in {LOAD_SECONDS:.0f} s") from None
        # It loaded as the nicest process of the board; it serves like the loop.
        limits.restore_priority(_threads(self.pid), limits.thread_priority_of(os.getpid()))
        limits.be_killed_no_sooner(self.pid)

    def _usual(self) -> float:
        if len(self._took) < _USUAL_FRAMES:
            return HANG_SECONDS
        return min(HANG_SECONDS, max(_LEAST_LATE_SECONDS, _LATE * statistics.median(self._took)))

    def _send(self, batch: Array) -> None:
        count = batch.size
        if count * _FLOAT_BYTES > self._input_bytes:
            raise EngineError(f"a batch {batch.shape} is not what the engine is fed")
        self._memory[:count].reshape(batch.shape)[...] = batch
        self._number += 1
        self._sent = time.monotonic()
        self._say(Message(wire.INFER, self._number, wire.pack_shape(batch.shape)))

    def _receive(self, seconds: float) -> Array:
        """Waits for the answer to the last question, ``seconds`` from now at the most."""
        self._talk.settimeout(max(seconds, 1e-4))
        try:
            answer = self._hear()
        except TimeoutError:
            if time.monotonic() - self._sent >= HANG_SECONDS:
                raise self._end(f"engine hangs: no answer in {HANG_SECONDS:.0f} s") from None
            self._late_since = self._sent
            raise EngineLate("engine is late with a frame") from None
        self._took.append(time.monotonic() - self._sent)
        self._late_since = 0.0
        if answer.kind == wire.ANSWER and answer.number != self._number:
            raise self._end("engine's process answers what it was not asked")
        return self._understand(answer)

    def _understand(self, answer: Message) -> Array:
        if answer.kind == wire.FAILED:
            code, why = wire.unpack_failure(answer.body)
            if code == wire.LOST:
                raise self._end(why)
            raise MemoryError(why) if code == wire.MEMORY else EngineError(why)
        if answer.kind == wire.READY:
            self._memory_bytes = wire.unpack_memory(answer.body)
            return self._memory[:0]
        try:
            shape = wire.unpack_shape(answer.body, _OUTPUT_BYTES)
        except wire.WireError as error:
            raise self._end(f"engine's process gives {error}") from None
        begin = self._input_bytes // _FLOAT_BYTES
        # Copied once: what is decoded is not changed by anybody meanwhile.
        found = self._memory[begin : begin + math.prod(shape)].reshape(shape)
        return np.array(found, dtype=np.float32)

    def _say(self, message: Message) -> None:
        try:
            self._talk.send(wire.pack(message))
        except OSError:
            raise self._gone() from None

    def _hear(self) -> Message:
        try:
            data = self._talk.recv(wire.LIMIT_BYTES)
        except TimeoutError:
            raise
        except OSError:
            raise self._gone() from None
        if not data:
            raise self._gone()
        try:
            return wire.unpack(data)
        except wire.WireError as error:
            raise self._end(f"engine's process {error}") from None

    def _gone(self) -> EngineGone:
        """Returns what became of the process."""
        try:
            status = self._process.wait(_CLOSE_SECONDS)
        except subprocess.TimeoutExpired:
            return self._end("engine's process hung up")
        if self._ended:
            return EngineGone(self._ended)
        if status == -signal.SIGKILL:
            # Nobody but the kernel kills it so: it offers itself to be the first.
            return EngineKilled("engine's process was killed (SIGKILL): memory was short")
        how = signal.Signals(-status).name if status < 0 else f"status {status}"
        return EngineGone(f"engine crashed its process ({how})")

    def _end(self, why: str) -> EngineGone:
        self._ended = self._ended or why
        self._process.kill()
        return EngineGone(why)


def _hosted(role: FileRole, blob: VerifiedBlob) -> HostedFile:
    if role not in ("engine", "engine-weights"):
        raise EngineError(f"a file {role} is none of an engine")
    return HostedFile(role=role, sha256=blob.sha256, length=blob.length)


def _shared_memory(length: int) -> int:
    """Returns memory that the process may write into but not cut: that would kill the runner."""
    fd = os.memfd_create("kedge tensors", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.ftruncate(fd, length)
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, _SEALS)
    return fd


def _threads(pid: int) -> set[int]:
    try:
        return {int(each.name) for each in Path(f"/proc/{pid}/task").iterdir()}
    except OSError:
        return set()
