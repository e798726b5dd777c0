"""The process of a hosted engine: ``python -m kedge_agent.hosting.child SOCKET_FD``.

It has the walls of the preflight child: no network, no files but libraries, bounded memory, and it
is the first that the kernel kills. It gets the engine as sealed memory, frames as shared memory,
and nothing else.
"""

from __future__ import annotations

import mmap
import os
import socket
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, cast

import msgspec

from kedge_agent import sandbox
from kedge_agent.blobs import VerifiedBlob
from kedge_agent.children import leave
from kedge_agent.errors import EngineError, EngineGone
from kedge_agent.hosting import wire
from kedge_agent.hosting.wire import Message, Order
from kedge_agent.runtimes.base import Dispatching, Engine, EngineSpec


@dataclass(frozen=True)
class Tensors:
    """Shared memory: the input first, the output behind it."""

    memory: mmap.mmap
    input_bytes: int
    output_bytes: int

    def given(self, body: bytes) -> Any:
        """Returns the input of a message, (1, 3, height, width) float32."""
        import numpy as np

        shape = wire.unpack_shape(body, self.input_bytes)
        view = memoryview(self.memory)[: self.input_bytes]
        return np.frombuffer(view, dtype=np.float32)[: int(np.prod(shape))].reshape(shape)

    def leave(self, found: Any) -> bytes:
        """Writes an output; returns its shape as it is sent."""
        if found.nbytes > self.output_bytes:
            raise EngineError(f"an output {found.shape} is larger than a host may give")
        self.memory[self.input_bytes : self.input_bytes + found.nbytes] = found.tobytes()
        return wire.pack_shape(found.shape)


def serve(talk: socket.socket) -> None:
    """Loads what is ordered and answers until the other side is gone."""
    data, (memory, *fds), _, _ = socket.recv_fds(talk, wire.LIMIT_BYTES, wire.MOST_DESCRIPTORS)
    order = msgspec.json.decode(wire.unpack(data).body, type=Order)
    sandbox.enter([], memory_mb=order.memory_mb)
    try:
        engine = load(order, fds)
    except (EngineError, MemoryError) as error:
        talk.send(wire.pack(Message(wire.FAILED, 0, _failure(error))))
        return
    tensors = Tensors(
        mmap.mmap(memory, order.input_bytes + order.output_bytes),
        order.input_bytes, order.output_bytes,
    )  # fmt: skip
    talk.send(wire.pack(Message(wire.READY, 0)))
    while data := talk.recv(wire.LIMIT_BYTES):
        talk.send(wire.pack(_answer(engine, tensors, wire.unpack(data))))


def load(order: Order, fds: Sequence[int]) -> Engine:
    """Loads the engine of an order, from sealed files that were checked when they were sealed.

    Args:
        order: What to load.
        fds: Of its files.

    Raises:
        EngineError: The runtime is missing or does not take it.
        MemoryError: There is not enough for it.
    """
    from kedge_agent.runtimes.registry import RUNTIMES

    runtime = RUNTIMES.get(order.runtime)
    if runtime is None:
        raise EngineError(f"runtime {order.runtime} is not known to this agent")
    with ExitStack() as closing:
        blobs = {
            each.role: VerifiedBlob(fd, each.sha256, each.length)
            for fd, each in zip(fds, order.files, strict=True)
        }
        for blob in blobs.values():
            closing.callback(_release, blob)
        if order.lean and isinstance(runtime, Dispatching):
            runtime = runtime.through(order.lean)
        return runtime.load(cast("Any", blobs), cast("EngineSpec", order), threads=order.threads)


def _release(blob: VerifiedBlob) -> None:
    from kedge_agent.detector import release

    release(blob)


def _answer(engine: Engine, tensors: Tensors, asked: Message) -> Message:
    try:
        found = engine.infer(tensors.given(asked.body))
        return Message(wire.ANSWER, asked.number, tensors.leave(found))
    except (EngineError, MemoryError) as error:
        return Message(wire.FAILED, asked.number, _failure(error))


def _failure(error: EngineError | MemoryError) -> bytes:
    code = wire.LOST if isinstance(error, EngineGone) else wire.ENGINE
    code = wire.MEMORY if isinstance(error, MemoryError) else code
    return wire.pack_failure(code, str(error))


def main() -> None:
    """Serves one engine."""
    fd = int(sys.argv[1])
    os.set_inheritable(fd, False)
    with socket.socket(fileno=fd) as talk:
        serve(talk)
    leave()


if __name__ == "__main__":
    main()
