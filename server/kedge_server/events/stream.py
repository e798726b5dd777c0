"""Server-sent events (https://html.spec.whatwg.org/multipage/server-sent-events.html).

A follower holds no queue: it remembers the id it was last sent and is read more from the table, so
that one that is slow costs no memory. One that takes nothing for too long is dropped, and comes
back with ``Last-Event-ID``; what the table does not hold any more is told as a gap.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping

import anyio
from fastapi.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from kedge_server.context import Context
from kedge_server.database import transaction
from kedge_server.events import service
from kedge_shared import wire
from kedge_shared.events import EventInfo

_LOOK_SECONDS = 1.0
_HEARTBEAT_SECONDS = 15.0
#: A follower that takes nothing for so long is dropped.
_SLOW_SECONDS = 20.0
_BATCH = 200


class Feed:
    """How far events have come: asked of the database once, however many follow.

    Attributes:
        followers: How many there are.

    Args:
        context: The server.
    """

    def __init__(self, context: Context) -> None:
        self._context = context
        self._lock = asyncio.Lock()
        self._looked, self._bounds = 0.0, (0, 0)
        self.followers = 0

    async def bounds(self) -> tuple[int, int]:
        """Returns the ids of the oldest and the newest event, a second old at the most."""
        async with self._lock:
            if time.monotonic() - self._looked >= _LOOK_SECONDS:
                self._bounds = await run_in_threadpool(self._read)
                self._looked = time.monotonic()
            return self._bounds

    def _read(self) -> tuple[int, int]:
        with transaction(self._context.engine) as session:
            return service.bounds(session)

    def after(self, last: int, kinds: tuple[str, ...], subject: str) -> tuple[list[EventInfo], int]:
        """Returns some events after one, and the id up to which was looked."""
        with transaction(self._context.engine) as session:
            return service.after(session, last, _BATCH, kinds, subject)


class EventStream(Response):
    """An answer that goes on until the follower leaves or is dropped.

    Args:
        feed: Where events come from.
        last: Id of the last event that the follower has, or ``None`` to begin with the next.
        kinds: Which it wants.
        subject: Only what is about this, if given.
    """

    media_type = "text/event-stream"

    def __init__(
        self, feed: Feed, last: int | None, kinds: tuple[str, ...], subject: str = ""
    ) -> None:
        super().__init__(headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"})
        del self.headers["content-length"]
        self._feed, self._last, self._kinds, self._subject = feed, last, kinds, subject

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Sends until the end."""
        self._feed.followers += 1
        try:
            async with anyio.create_task_group() as group:

                async def gone() -> None:
                    while (await receive())["type"] != "http.disconnect":
                        pass
                    group.cancel_scope.cancel()

                group.start_soon(gone)
                await self._follow(send)
                group.cancel_scope.cancel()
        except (ClientDisconnect, OSError):
            return  # it left while something was sent to it
        finally:
            self._feed.followers -= 1

    async def _follow(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        last, spoken = await self._begin(send), time.monotonic()
        while True:
            _, newest = await self._feed.bounds()
            chunk = b""
            if newest > last:
                found, last = await run_in_threadpool(
                    self._feed.after, last, self._kinds, self._subject
                )
                chunk = b"".join(frame(each) for each in found)
            elif time.monotonic() - spoken >= _HEARTBEAT_SECONDS:
                chunk = b": still here\n\n"
            if chunk:
                if not await _sent(send, chunk):
                    return
                spoken = time.monotonic()
            if newest <= last:
                await asyncio.sleep(_LOOK_SECONDS)

    async def _begin(self, send: Send) -> int:
        """Tells of what is not there any more; returns the id after which to go on."""
        oldest, newest = await self._feed.bounds()
        last = newest if self._last is None else self._last
        opening = b"retry: 2000\n\n"
        # Ids above the newest are of a server that was restored from a backup since.
        if last > newest or 0 < last < oldest - 1:
            upto = min(last, newest) if last > newest else oldest - 1
            opening += _frame("gap", {"after": last, "upto": upto}, upto)
            last = upto
        await _sent(send, opening)
        return last


def frame(event: EventInfo) -> bytes:
    """Returns an event as it goes over the wire."""
    return _frame(event.kind, event, event.id)


def _frame(kind: str, data: EventInfo | Mapping[str, int], name: int) -> bytes:
    return b"id: %d\nevent: %s\ndata: %s\n\n" % (name, kind.encode(), wire.encode(data))


async def _sent(send: Send, chunk: bytes) -> bool:
    """Sends; says whether the follower took it in time."""
    message: Message = {"type": "http.response.body", "body": chunk, "more_body": True}
    with anyio.move_on_after(_SLOW_SECONDS) as scope:
        await send(message)
    return not scope.cancelled_caught
