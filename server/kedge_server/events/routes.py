"""``/api/v1/events``."""

from __future__ import annotations

from typing import Annotated, cast

from fastapi import APIRouter, Header, Query, Request, Response
from fastapi.concurrency import run_in_threadpool

from kedge_server.auth import MayWatch
from kedge_server.context import Services
from kedge_server.database import transaction
from kedge_server.errors import MalformedError, RequestError
from kedge_server.events import service
from kedge_server.events.stream import EventStream, Feed
from kedge_shared import wire
from kedge_shared.errors import InputError
from kedge_shared.events import EventInfo, KindPattern

router = APIRouter(prefix="/api/v1/events", tags=["events"])
_DIGITS = 18

Kind = Annotated[
    list[str] | None, Query(description="`rollout.halted`, `device.*`; may be repeated.")
]


class BusyError(RequestError):
    """There are as many followers as the server takes."""

    status = 503


@router.get(
    "",
    summary="Follow what happens (server-sent events)",
    response_class=Response,
    responses={200: {"content": {"text/event-stream": {}}}},
)
async def follow(
    request: Request,
    services: Services,
    _: MayWatch,
    kind: Kind = None,
    subject: Annotated[str, Query(max_length=200)] = "",
    after: Annotated[int | None, Query(ge=0, le=10**_DIGITS - 1)] = None,
    last_event_id: Annotated[str | None, Header(max_length=_DIGITS)] = None,
) -> Response:
    """Sends events as they come, or goes on after one; 0 begins with the oldest.

    A browser cannot say ``Last-Event-ID`` when it comes first, so ``after`` says it; when it comes
    again the header is the later of the two, and the one that counts.
    """
    feed = cast("Feed", request.app.state.feed)
    if feed.followers >= services.settings.event_streams:
        raise BusyError("too many follow already", "KEDGE_SERVER_EVENT_STREAMS")
    last = int(last_event_id) if last_event_id and last_event_id.isdigit() else after
    return EventStream(feed, last, _kinds(kind), subject)


@router.get("/recent", summary="The newest events")
async def recent(
    services: Services, _: MayWatch, kind: Kind = None,
    subject: Annotated[str, Query(max_length=200)] = "",
    most: Annotated[int, Query(ge=1, le=1000)] = 100,
) -> list[EventInfo]:  # fmt: skip
    """Returns what matches among the newest events, oldest first."""
    kinds = _kinds(kind)

    def work() -> list[EventInfo]:
        with transaction(services.engine) as session:
            _, newest = service.bounds(session)
            return service.after(session, newest - most, most, kinds, subject)[0]

    return await run_in_threadpool(work)


def _kinds(kind: list[str] | None) -> tuple[str, ...]:
    try:
        found = wire.decode(wire.encode(kind or ["*"]), tuple[KindPattern, ...], "kind")
    except InputError as error:
        raise MalformedError(error.what, "write rollout.halted, device.* or *") from None
    return found
