"""Events and webhooks of the operator API."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import httpx

from kedge_shared import wire
from kedge_shared.client import Client, refusal
from kedge_shared.errors import ServiceError
from kedge_shared.events import DeliveryInfo, EventInfo, WebhookInfo, WebhookRequest

_EVENTS, _WEBHOOKS = "/api/v1/events", "/api/v1/webhooks"
#: The server says something every fifteen seconds; twice of that and it is gone.
_SILENCE_SECONDS = 40.0
_FIRST_WAIT_SECONDS, _LONGEST_WAIT_SECONDS = 1.0, 30.0
#: One event is at most some kilobytes.
_LINE_LIMIT = 1_000_000
#: Kind of what is no event: some were dropped before this follower came back for them.
GAP = "gap"


class EventClient(Client):
    """Reads and follows events, and has them sent somewhere."""

    def recent_events(
        self, kinds: Sequence[str] = (), subject: str = "", most: int = 100
    ) -> list[EventInfo]:
        """Returns what matches among the newest events, oldest first."""
        params = {"kind": list(kinds), "subject": subject, "most": most}
        return self._get(f"{_EVENTS}/recent", list[EventInfo], params)

    def follow_events(
        self,
        kinds: Sequence[str] = (),
        subject: str = "",
        last: int | None = None,
        away: Callable[[], None] = lambda: None,
    ) -> Iterator[EventInfo]:
        """Yields events as they come, for ever; after a break it goes on where it was.

        Args:
            kinds: Which, such as ``rollout.*``; empty is all.
            subject: Only what is about this rollout, device or release, if given.
            last: Id of the last event that is known, or ``None`` to begin with the next.
            away: Called when the server has gone away, before it is tried again.

        Raises:
            ServiceError: The server refuses; that it is away is waited for.
        """
        wait = _FIRST_WAIT_SECONDS
        while True:
            try:
                for event in self._stream(kinds, subject, last):
                    last, wait = event.id, _FIRST_WAIT_SECONDS
                    yield event
            except httpx.TransportError:
                away()
            except ServiceError as error:
                if error.status is not None and error.status < 500:
                    raise
                away()
            time.sleep(wait)
            wait = min(wait * 2, _LONGEST_WAIT_SECONDS)

    def _stream(self, kinds: Sequence[str], subject: str, last: int | None) -> Iterator[EventInfo]:
        headers = {} if last is None else {"Last-Event-ID": str(last)}
        params: dict[str, Any] = {"kind": list(kinds), "subject": subject}
        timeout = httpx.Timeout(_SILENCE_SECONDS, connect=10.0)
        with self.http.stream(
            "GET", _EVENTS, params=params, headers=headers, timeout=timeout
        ) as answer:
            if not answer.is_success:
                answer.read()
                raise refusal(self.server, answer)
            yield from parse(answer.iter_lines())

    def webhooks(self) -> list[WebhookInfo]:
        """Returns every webhook, without secrets."""
        return self._get(_WEBHOOKS, list[WebhookInfo])

    def add_webhook(self, request: WebhookRequest) -> WebhookInfo:
        """Makes a webhook; the answer holds its secret, and no other does."""
        return self._post(_WEBHOOKS, request, WebhookInfo)

    def remove_webhook(self, webhook: str) -> None:
        """Removes a webhook with what is on its way."""
        self._send("DELETE", f"{_WEBHOOKS}/{webhook}")

    def enable_webhook(self, webhook: str) -> WebhookInfo:
        """Takes a disabled webhook up again."""
        return self._post(f"{_WEBHOOKS}/{webhook}/enable", None, WebhookInfo)

    def test_webhook(self, webhook: str) -> DeliveryInfo:
        """Sends it an event that tells of nothing."""
        return self._post(f"{_WEBHOOKS}/{webhook}/test", None, DeliveryInfo)

    def deliveries(self, webhook: str, most: int = 100) -> list[DeliveryInfo]:
        """Returns a webhook's deliveries, newest first."""
        params = {"most": most}
        return self._get(f"{_WEBHOOKS}/{webhook}/deliveries", list[DeliveryInfo], params)

    def redeliver(self, delivery: str) -> DeliveryInfo:
        """Sends a delivery again."""
        return self._post(f"{_WEBHOOKS}/deliveries/{delivery}/redeliver", None, DeliveryInfo)


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
