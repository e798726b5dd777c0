"""How the process of an engine is started, now or beforehand."""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from kedge_agent.children import clean_environment
from kedge_agent.errors import EngineError

#: A child ends with the *thread* that started it, so that must be one that stays.
_STARTER = ThreadPoolExecutor(1, "engine starter")


@dataclass(frozen=True)
class HostProcess:
    """A process that waits for its engine.

    Attributes:
        process: It.
        talk: This side's end of its socket.
    """

    process: subprocess.Popen[bytes]
    talk: socket.socket


@dataclass(frozen=True)
class Host:
    """What engines' processes are started with.

    Attributes:
        command: What is started, the number of the socket's descriptor behind it.
        environment: Its own; by default that of this process without credentials.
    """

    command: Sequence[str]
    environment: Mapping[str, str] = field(default_factory=clean_environment)
    _waiting: list[HostProcess] = field(default_factory=list, init=False)

    def reserve(self, count: int) -> None:
        """Starts processes ahead, for one that soon may start none any more.

        To be called from the thread that lives as long as the process.
        """
        self._waiting.extend(self._start() for _ in range(count))

    def start(self) -> HostProcess:
        """Returns a process: one of those that wait, else a new one.

        Raises:
            EngineError: It cannot be started.
        """
        if self._waiting:
            return self._waiting.pop()
        return _STARTER.submit(self._start).result()

    def _start(self) -> HostProcess:
        mine, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            process = subprocess.Popen(
                [*self.command, str(theirs.fileno())], pass_fds=[theirs.fileno()],
                env=dict(self.environment), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
            )  # fmt: skip
        except OSError as error:
            mine.close()
            why = error.strerror or os.strerror(error.errno or 0)
            raise EngineError(f"engine's process cannot be started: {why}") from None
        finally:
            theirs.close()
        return HostProcess(process, mine)
