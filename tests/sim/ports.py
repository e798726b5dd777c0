"""Ports for servers that are stopped and started again at the same place."""

from __future__ import annotations

import random
import socket

#: Below what kernels give to clients (32768 on Linux, from 1024 on where somebody said so).
_FIRST, _LAST = 20_000, 32_000


def steady_port() -> int:
    """Returns a free port on 127.0.0.1 that the kernel gives to nobody.

    One of its own range may be another process's by the time a server comes back to it.
    """
    while True:
        port = random.randrange(_FIRST, _LAST)
        try:
            with socket.create_server(("127.0.0.1", port)):
                return port
        except OSError:
            continue
