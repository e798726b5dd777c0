"""Load for the server's benchmarks: requests as fast as they are answered, or at a given rate.

At a given rate a request's time counts from when it was due, not from when a connection was free
for it: a server that stands still must not hide the requests that it kept from being sent
(coordinated omission).
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import Counter, deque
from collections.abc import Callable, Coroutine, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, cast
from urllib.parse import urlsplit

_TURN_SECONDS = 0.001


@dataclass
class Load:
    """What came back.

    Attributes:
        seconds: From the first request to the last answer.
        statuses: Status → answers.
        times: Seconds of each answer.
    """

    seconds: float = 0.0
    statuses: Counter[int] = field(default_factory=Counter)
    times: list[float] = field(default_factory=list)

    @property
    def rate(self) -> float:
        """Returns answers a second."""
        return sum(self.statuses.values()) / self.seconds

    def quantile(self, share: float) -> float:
        """Returns a quantile of the times, seconds."""
        return sorted(self.times)[min(len(self.times) - 1, int(share * len(self.times)))]

    @property
    def failed(self) -> int:
        """Returns how many answers were 5xx."""
        return sum(count for status, count in self.statuses.items() if status >= 500)


Heard = Callable[[int, int, bytes], None]


class _Line(asyncio.Protocol):
    """One connection: a request at a time."""

    def __init__(self, done: Callable[[_Line, int, bytes], None]) -> None:
        self._done, self._data, self.at, self.due = done, b"", -1, 0.0
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keeps the connection."""
        # uvloop's are no subclasses of asyncio's.
        self.transport = cast("asyncio.Transport", transport)

    def send(self, request: bytes, at: int, due: float) -> None:
        """Sends request number ``at``."""
        assert self.transport is not None
        self.at, self.due, self._data = at, due, b""
        self.transport.write(request)

    def data_received(self, data: bytes) -> None:
        """Looks whether the answer is whole."""
        self._data += data
        head, end, body = self._data.partition(b"\r\n\r\n")
        if not end:
            return
        status = int(head[9:12])
        wanted = 0
        if status != 304:
            found = head.lower().partition(b"\r\ncontent-length:")[2]
            wanted = int(found.partition(b"\r\n")[0] or 0)
        if len(body) >= wanted:
            self._done(self, status, head)

    def connection_lost(self, exc: Exception | None) -> None:
        """Tells of a request that is lost with it as status 599."""
        if self.at >= 0:
            self._done(self, 599, b"")


async def _lines(url: str, count: int, done: Callable[[_Line, int, bytes], None]) -> list[_Line]:
    parts = urlsplit(url)
    loop = asyncio.get_running_loop()
    return [
        (
            await loop.create_connection(
                lambda: _Line(done), str(parts.hostname), int(parts.port or 80)
            )
        )[1]
        for _ in range(count)
    ]


async def _all(url: str, requests: Iterator[bytes], lines: int, heard: Heard | None) -> Load:
    found, left, over = Load(), enumerate(requests), asyncio.Event()
    running = lines

    def done(line: _Line, status: int, head: bytes) -> None:
        nonlocal running
        now = time.perf_counter()
        if line.at >= 0:
            found.statuses[status] += 1
            found.times.append(now - line.due)
            if heard is not None:
                heard(line.at, status, head)
        at, request = next(left, (-1, b""))
        if at < 0 or status == 599:
            line.at = -1
            running -= 1
            if not running:
                over.set()
            return
        line.send(request, at, now)

    opened = await _lines(url, lines, done)
    started = time.perf_counter()
    for each in opened:
        done(each, 0, b"")
    await over.wait()
    found.seconds = time.perf_counter() - started
    _close(opened)
    return found


async def _paced(
    url: str, requests: Sequence[bytes], rate: float, seconds: float, lines: int
) -> Load:
    found, waiting = Load(), deque[float]()
    idle: deque[_Line] = deque()
    sent = 0

    def send(line: _Line, due: float) -> None:
        nonlocal sent
        line.send(requests[sent % len(requests)], sent, due)
        sent += 1

    def done(line: _Line, status: int, _: bytes) -> None:
        found.statuses[status] += 1
        found.times.append(time.perf_counter() - line.due)
        line.at = -1
        if waiting:
            send(line, waiting.popleft())
        else:
            idle.append(line)

    opened = await _lines(url, lines, done)
    idle.extend(opened)
    started, planned = time.perf_counter(), 0
    total = int(rate * seconds)
    while sum(found.statuses.values()) < total:
        due = min(total, int((time.perf_counter() - started) * rate))
        for each in range(planned, due):
            if idle:
                send(idle.popleft(), started + each / rate)
            else:
                waiting.append(started + each / rate)
        planned = due
        await asyncio.sleep(_TURN_SECONDS)
    found.seconds = time.perf_counter() - started
    _close(opened)
    return found


def _close(lines: Sequence[_Line]) -> None:
    for each in lines:
        each.at = -1
        if each.transport is not None:
            each.transport.close()


def _run(work: Coroutine[Any, Any, Load]) -> Load:
    with contextlib.suppress(ImportError):
        import uvloop

        found: Load = uvloop.run(work)
        return found
    return asyncio.run(work)


def send_all(
    url: str, requests: Iterator[bytes], lines: int = 64, heard: Heard | None = None
) -> Load:
    """Sends requests as fast as they are answered.

    Args:
        url: Of the server.
        requests: Whole HTTP requests.
        lines: Connections.
        heard: Called with each request's number, its answer's status and head.
    """
    return _run(_all(url, requests, lines, heard))


def send_paced(
    url: str, requests: Sequence[bytes], rate: float, seconds: float, lines: int = 64
) -> Load:
    """Sends requests at a rate, whatever comes back.

    Args:
        url: Of the server.
        requests: Whole HTTP requests, taken in turn.
        rate: Requests a second.
        seconds: For how long.
        lines: Connections.
    """
    return _run(_paced(url, requests, rate, seconds, lines))
