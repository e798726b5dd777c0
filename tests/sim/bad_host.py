"""A process of a hosted engine that does what engines must not: ``bad_host HOW AT SOCKET_FD``."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import time
from typing import Any

from kedge_agent.errors import EngineError
from kedge_agent.hosting import child
from kedge_agent.hosting.wire import Order


class BadEngine:
    """Answers with its input's first numbers, until it comes to a frame."""

    def __init__(self, how: str, at: int) -> None:
        self.how, self.at, self.seen = how, at, 0

    def infer(self, batch: Any) -> Any:
        self.seen += 1
        if self.seen == self.at:
            self.misbehave()
        return batch.reshape(1, -1)[:, :12].reshape(1, 6, 2).copy()

    def misbehave(self) -> None:
        if self.how == "crash":
            ctypes.string_at(0)
        if self.how == "killed":  # as the kernel does when memory is short
            os.kill(os.getpid(), signal.SIGKILL)
        if self.how == "exit":
            os._exit(3)
        if self.how == "fail":
            raise EngineError("not this one")
        if self.how == "late":
            time.sleep(0.4)
        if self.how == "bomb":
            kept = []
            while True:
                kept.append(bytearray(8 * 2**20))
        while self.how == "hang":
            time.sleep(1)

    def close(self) -> None: ...


def main() -> None:
    how, at = sys.argv.pop(1), int(sys.argv.pop(1))

    def load(order: Order, fds: Any) -> BadEngine:
        engine = BadEngine(how, at)
        if at == 0:
            engine.misbehave()
        return engine

    child.load = load
    child.main()


if __name__ == "__main__":
    main()
