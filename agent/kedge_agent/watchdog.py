"""What systemd is told of the service: sd_notify(3), datagrams on the socket it names.

The protocol is a dozen bytes; the bindings for it bring more code than it has.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from contextlib import suppress

_MICRO = 1_000_000


def notify(message: str, environment: Mapping[str, str] = os.environ) -> bool:
    """Sends a message such as ``READY=1``; says whether anybody is listening.

    A service manager that is gone is no reason to stop: nothing is raised.
    """
    address = environment.get("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")):
        return False
    # An abstract socket is written with @ and begins with a zero byte.
    path = "\0" + address[1:] if address.startswith("@") else address
    with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.sendto(message.encode(), path)
        return True
    return False


def interval_seconds(environment: Mapping[str, str] = os.environ) -> float | None:
    """Returns how often systemd wants to hear from this process; ``None`` is: not at all.

    Half of ``WATCHDOG_USEC``, as sd_watchdog_enabled(3) recommends; not for another process's.
    """
    pid = environment.get("WATCHDOG_PID", "")
    if pid and pid != str(os.getpid()):
        return None
    try:
        micro = int(environment.get("WATCHDOG_USEC", ""))
    except ValueError:
        return None
    return micro / _MICRO / 2 if micro > 0 else None
