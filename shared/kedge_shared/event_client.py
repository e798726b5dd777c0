"""Events and webhooks over the operator API, beside :class:`kedge_shared.client.Client`."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeVar

import httpx

from kedge_shared import wire
from kedge_shared.client import Client, refusal
from kedge_shared.errors import ServiceError
from kedge_shared.events import DeliveryInfo, EventInfo, WebhookInfo, WebhookRequest

T = TypeVar("T")

_EVENTS, _WEBHOOKS = "/api/v1/events", "/api/v1/webhooks"
#: The server says something every fifteen seconds; twice of that and it is gone.
_SILENCE_SECONDS = 40.0
_FIRST_WAIT_SECONDS, _LONGEST_WAIT_SECONDS = 1.0, 30.0
#: One event is at most some kilobytes.
_LINE_LIMIT = 1_000_000
#: Kind of what is no event: some were dropped before this follower came back for them.
GAP = "gap"


def recent(
    client: Client, kinds: Sequence[str] = (), subject: str = "", most: int = 100
) -> list[EventInfo]:
    """Returns what matches among the newest events, oldest first."""
    params = {"kind": list(kinds), "subject": subject, "most": most}
    return _ask(client, "GET", f"{_EVENTS}/recent", list[EventInfo], params=params)


def follow(
    client: Client, kinds: Sequence[str] = (), subject: str = "", last: int | None = None
) -> Iterator[EventInfo]:
    """Yields events as they come, for ever; after a break it goes on where it was.

    Args:
        client: Operator's.
        kinds: Which; empty is all.
        subject: Only what is about this, if given.
        last: Id of the last event that is known, or ``None`` to begin with the next.

    Raises:
        ServiceError: The server refuses; that it is away is waited for.
    """
    wait = _FIRST_WAIT_SECONDS
    while True:
        try:
            for event in _stream(client, kinds, subject, last):
                last, wait = event.id, _FIRST_WAIT_SECONDS
                yield event
        except httpx.TransportError:
            pass
        except ServiceError as error:
            if error.status is not None and error.status < 500:
                raise
        time.sleep(wait)
        wait = min(wait * 2, _LONGEST_WAIT_SECONDS)


def _stream(
    client: Client, kinds: Sequence[str], subject: str, last: int | None
) -> Iterator[EventInfo]:
    headers = {} if last is None else {"Last-Event-ID": str(last)}
    params: dict[str, Any] = {"kind": list(kinds), "subject": subject}
    timeout = httpx.Timeout(_SILENCE_SECONDS, connect=10.0)
    with client.http.stream(
        "GET", _EVENTS, params=params, headers=headers, timeout=timeout
    ) as answer:
        if not answer.is_success:
            answer.read()
            raise refusal(client.server, answer)
        yield from parse(answer.iter_lines())


def parse(lines: Iterator[str]) -> Iterator[EventInfo]:
    """Reads server-sent events."""
    fields: dict[str, str] = {}
    for line in lines:
        if line:
            name, _, value = line[:_LINE_LIMIT].partition(":")
            fields[name] = value.removeprefix(" ")
            continue
        if fields.get("event") == GAP:
            data = json.loads(fields["data"])
            yield EventInfo(id=int(fields["id"]), at=time.time(), kind=GAP, subject="", data=data)
        elif "data" in fields:
            yield wire.decode(fields["data"].encode(), EventInfo, "event")
        fields = {}


def webhooks(client: Client) -> list[WebhookInfo]:
    """Returns every webhook, without secrets."""
    return _ask(client, "GET", _WEBHOOKS, list[WebhookInfo])


def add_webhook(client: Client, request: WebhookRequest) -> WebhookInfo:
    """Makes a webhook; the answer holds its secret, and no other does."""
    return _ask(client, "POST", _WEBHOOKS, WebhookInfo, body=request)


def remove_webhook(client: Client, webhook: str) -> None:
    """Removes a webhook with what is on its way."""
    _send(client, "DELETE", f"{_WEBHOOKS}/{webhook}")


def enable_webhook(client: Client, webhook: str) -> WebhookInfo:
    """Takes a disabled webhook up again."""
    return _ask(client, "POST", f"{_WEBHOOKS}/{webhook}/enable", WebhookInfo)


def deliveries(client: Client, webhook: str, most: int = 100) -> list[DeliveryInfo]:
    """Returns a webhook's deliveries, newest first."""
    path = f"{_WEBHOOKS}/{webhook}/deliveries"
    return _ask(client, "GET", path, list[DeliveryInfo], params={"most": most})


def redeliver(client: Client, delivery: str) -> DeliveryInfo:
    """Sends a delivery again."""
    return _ask(client, "POST", f"{_WEBHOOKS}/deliveries/{delivery}/redeliver", DeliveryInfo)


def _ask(
    client: Client, method: str, path: str, kind: type[T], *,
    params: Mapping[str, Any] | None = None, body: object | None = None,
) -> T:  # fmt: skip
    return wire.decode(_send(client, method, path, params, body).content, kind, "server's answer")


def _send(
    client: Client, method: str, path: str, params: Mapping[str, Any] | None = None,
    body: object | None = None,
) -> httpx.Response:  # fmt: skip
    content = b"" if body is None else wire.encode(body)
    headers = {"Content-Type": "application/json"} if content else {}
    try:
        answer = client.http.request(
            method, path, params=dict(params or {}), content=content, headers=headers
        )
    except httpx.TransportError as error:
        raise ServiceError(
            f"server {client.server} does not answer ({type(error).__name__})",
            "check the address and that `kedge server run` is up",
        ) from None
    if not answer.is_success:
        raise refusal(client.server, answer)
    return answer
