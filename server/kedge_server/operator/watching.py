"""Follows a rollout: looked at when something happens to it, and every so often."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import TYPE_CHECKING

from kedge_shared import api
from kedge_shared.errors import KedgeError

if TYPE_CHECKING:
    from kedge_shared.client import Client
    from kedge_shared.events import EventInfo

_OPEN = {"running", "paused"}


def until_final(
    client: Client, name: str, every_seconds: float, told: Callable[[EventInfo], None]
) -> Iterator[api.RolloutInfo]:
    """Yields a rollout as it changes; ends with its last state.

    Args:
        client: Operator's.
        name: Rollout.
        every_seconds: Looks without an event: devices change too, and a server may tell no events.
        told: Called with each event about it, before the look that follows.
    """
    happened: queue.SimpleQueue[EventInfo] = queue.SimpleQueue()
    ended = threading.Event()
    threading.Thread(target=_listen, args=(client, name, happened, ended), daemon=True).start()
    try:
        while True:
            info = client.rollout(name)
            yield info
            if info.state not in _OPEN:
                return
            with suppress(queue.Empty):
                told(happened.get(timeout=every_seconds))
                while True:
                    told(happened.get_nowait())
    finally:
        ended.set()


def _listen(
    client: Client, name: str, happened: queue.SimpleQueue[EventInfo], ended: threading.Event
) -> None:
    from kedge_shared.event_client import follow

    try:
        for event in follow(client, subject=name):
            happened.put(event)
            if ended.is_set():
                return
    except (KedgeError, RuntimeError):
        # The server tells no events, or the command has ended and closed the connection.
        return
