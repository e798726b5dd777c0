"""Follows a rollout: looked at when something happens to it, and every so often."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import TYPE_CHECKING

from kedge_shared import api
from kedge_shared.errors import KedgeError, ServiceError

if TYPE_CHECKING:
    from kedge_shared.events import EventInfo
    from kedge_shared.operator_client import OperatorClient

_OPEN = {"running", "paused"}
#: A server that is upgraded or fails over comes back within this.
_PATIENCE_SECONDS, _AGAIN_SECONDS = 300.0, 3.0


def until_final(
    client: OperatorClient,
    name: str,
    every_seconds: float,
    told: Callable[[EventInfo], None],
    away: Callable[[], None] = lambda: None,
) -> Iterator[api.RolloutInfo]:
    """Yields a rollout as it changes; ends with its last state.

    Args:
        client: Operator's.
        name: Rollout.
        every_seconds: Looks without an event: devices change too, and a server may tell no events.
        told: Called with each event about it, before the look that follows.
        away: Called when the server does not answer, before it is asked again.
    """
    happened: queue.SimpleQueue[EventInfo] = queue.SimpleQueue()
    ended = threading.Event()
    threading.Thread(target=_listen, args=(client, name, happened, ended), daemon=True).start()
    try:
        while True:
            info = _look(client, name, away)
            yield info
            if info.state not in _OPEN:
                return
            with suppress(queue.Empty):
                told(happened.get(timeout=every_seconds))
                while True:
                    told(happened.get_nowait())
    finally:
        ended.set()


def _look(client: OperatorClient, name: str, away: Callable[[], None]) -> api.RolloutInfo:
    """Asks; a server that is started anew meanwhile is waited for.

    Raises:
        ServiceError: It refuses, or has been away for minutes.
    """
    until = time.monotonic() + _PATIENCE_SECONDS
    while True:
        try:
            return client.rollout(name)
        except ServiceError as error:
            if error.status is not None or time.monotonic() > until:
                raise
            away()
            time.sleep(_AGAIN_SECONDS)


def _listen(
    client: OperatorClient,
    name: str,
    happened: queue.SimpleQueue[EventInfo],
    ended: threading.Event,
) -> None:
    try:
        for event in client.follow_events(subject=name):
            happened.put(event)
            if ended.is_set():
                return
    except (KedgeError, RuntimeError):
        # The server tells no events, or the command has ended and closed the connection.
        return
