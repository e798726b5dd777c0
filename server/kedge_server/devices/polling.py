"""Answers polls: from memory where nothing changed, else many in one transaction."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sqlalchemy import select
from sqlmodel import col

from kedge_server import auth
from kedge_server.database import transaction
from kedge_server.devices.assignments import Signed
from kedge_server.devices.batches import Batches
from kedge_server.devices.door import Answer, Asked
from kedge_server.devices.intervals import Intervals
from kedge_server.devices.pace import next_poll
from kedge_server.devices.tables import DeviceRow
from kedge_shared import wire
from kedge_shared.protocol import (
    HEADER_COUNTER,
    HEADER_INTERVAL,
    HEADER_NONCE,
    HEADER_TIMESTAMP,
    PollAnswer,
)

if TYPE_CHECKING:
    from kedge_server.context import Context

PATH = "/api/v1/device/poll"
#: Unix time has ten; a board that lies about its counter harms nobody but itself.
_COUNTER_DIGITS = 15
_BATCH, _WAITING = 200, 20_000
_COUNTER = HEADER_COUNTER.lower().encode()
_INTERVAL, _TIMESTAMP, _NONCE = (
    each.lower().encode() for each in (HEADER_INTERVAL, HEADER_TIMESTAMP, HEADER_NONCE)
)
_FOREVER = float("inf")


@dataclass(frozen=True)
class _Poll:
    """A poll that memory cannot answer: whose, and the newest counter that it has accepted."""

    device: str
    seen: int


class Polls:
    """Answers polls.

    Args:
        services: The server's parts.
    """

    def __init__(self, services: Context) -> None:
        self._services, self._index = services, services.index
        self._intervals = Intervals(services.settings)
        self._batches: Batches[_Poll, Signed | None] = Batches(
            "polls", self._look_up, _BATCH, _WAITING
        )

    async def answer(self, asked: Asked) -> Answer:
        """Answers 304 where the board knows everything, else the assignment."""
        headers = asked.headers
        device = await auth.device_asking_soon(self._services, headers.get(b"authorization", b""))
        self._index.saw(device)
        place, now = self._index.place(device), time.time()
        seen, known = _counter(headers.get(_COUNTER, b"")), headers.get(b"if-none-match")
        version = self._services.repository.timestamp_version
        if place is not None and place.known(now) and place.counter >= seen:
            etag = b'"%d-%d"' % (place.counter, version)
            if known == etag:
                pause = next_poll(now, place.interval, place.phase)
                return Answer(304, self._headers(etag, version, pause))
        signed = await self._batches.do(_Poll(device, seen))
        etag = b'"%d-%d"' % (signed.counter if signed else 0, version)
        pause = self._pause(device)
        if known == etag:
            return Answer(304, self._headers(etag, version, pause))
        body = PollAnswer(
            assignment=json.loads(signed.envelope) if signed else None, nonce=self._nonce(),
            timestamp_version=version, next_poll_seconds=pause,
        )  # fmt: skip
        return Answer(200, self._headers(etag, version, pause), wire.encode(body))

    def _pause(self, device: str) -> float:
        place = self._index.place(device)
        interval = place.interval if place is not None else 0.0
        interval = interval or self._services.settings.poll_seconds
        return next_poll(time.time(), interval, place.phase if place is not None else 0.0)

    def _headers(self, etag: bytes, version: int, pause: float) -> list[tuple[bytes, bytes]]:
        return [
            (b"etag", etag), (_INTERVAL, b"%.3f" % pause), (_TIMESTAMP, b"%d" % version),
            (_NONCE, self._nonce().encode()),
        ]  # fmt: skip

    def _nonce(self) -> str:
        return self._services.access.nonce().nonce

    def _look_up(self, polls: Sequence[_Poll]) -> Sequence[Signed | None]:
        """Finds out what devices shall run; signs what must be signed."""
        generation = self._index.generation
        asked: dict[str, int] = {}
        for each in polls:
            asked[each.device] = max(each.seen, asked.get(each.device, 0))
        with transaction(self._services.engine) as session:
            found = self._services.director.assign_all(session, asked)
            columns = self._intervals.columns
            rows = session.execute(select(*columns).where(col(DeviceRow.id).in_(asked)))
            intervals = {each.id: self._intervals.of(each) for each in rows}
        for device, signed in found.items():
            counter, until = (signed.counter, signed.until) if signed else (0, _FOREVER)
            interval = intervals.get(device, self._services.settings.poll_seconds)
            self._index.put(device, counter, until, interval, generation)
        return [found[each.device] for each in polls]

    def close(self) -> None:
        """Ends once what was begun is answered."""
        self._batches.close()


def _counter(text: bytes) -> int:
    """Returns the newest counter the board says it has accepted; nonsense counts as none."""
    return int(text) if text.isdigit() and len(text) <= _COUNTER_DIGITS else 0
