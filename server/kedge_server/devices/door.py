"""What boards ask most is answered before FastAPI: polls and reports, as plain ASGI.

Routing, dependencies and validation by FastAPI cost several times what the answer itself does.
``devices/routes.py`` declares both for ``/docs``.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from kedge_server.answers import SECURITY_HEADERS, problem_of
from kedge_server.errors import TooLargeError
from kedge_server.metrics.traffic import Traffic

_JSON = (b"content-type", b"application/json")

Header = tuple[bytes, bytes]


class GoneError(Exception):
    """Whoever asked went away before the request was whole."""


@dataclass
class Asked:
    """A request.

    Attributes:
        headers: Lower-case name → value.
        receive: For the body.
    """

    headers: dict[bytes, bytes]
    receive: Receive

    async def body(self, limit_bytes: int) -> bytes:
        """Reads the body.

        Raises:
            TooLargeError: It is longer than ``limit_bytes``.
            GoneError: It ended in the midst.
        """
        found = b""
        while True:
            message: Message = await self.receive()
            if message["type"] == "http.disconnect":
                raise GoneError
            part: bytes = message.get("body", b"")
            found += part
            if len(found) > limit_bytes:
                raise TooLargeError(f"body is longer than {limit_bytes} bytes")
            if not message.get("more_body", False):
                return found


@dataclass
class Answer:
    """An answer.

    Attributes:
        status: HTTP status.
        headers: Beside those that every answer bears.
        body: JSON, or empty.
    """

    status: int
    headers: list[Header] = field(default_factory=list)
    body: bytes = b""


Handler = Callable[[Asked], Awaitable[Answer]]
#: (method, path) → who answers.
Handlers = dict[tuple[str, str], Handler]


class Door:
    """The whole application: answers some requests, and hands all others on.

    Args:
        app: What is behind it, and counts its own.
        handlers: (method, path) → who answers.
        traffic: Where those answers are counted.

    Attributes:
        app: What is behind it.
    """

    def __init__(self, app: ASGIApp, handlers: Handlers, traffic: Traffic) -> None:
        self.app, self._handlers, self._traffic = app, handlers, traffic

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one request, or hands it on."""
        handler = (
            self._handlers.get((scope["method"], scope["path"]))
            if scope["type"] == "http"
            else None
        )
        if handler is None:
            await self.app(scope, receive, send)
            return
        began, answer = time.perf_counter(), None
        try:
            answer = await handler(Asked(dict(scope["headers"]), receive))
        except GoneError:
            return
        # Boundary: what is no bug becomes an answer; a bug goes on to the server's last resort.
        except Exception as error:  # noqa: BLE001
            answer = _refusal(error)
        finally:
            status = answer.status if answer is not None else None
            self._traffic.count(scope["path"], status, time.perf_counter() - began)
        await _send(send, answer)


def _refusal(error: Exception) -> Answer:
    """Returns the answer that an error is; one that is a bug is raised again."""
    status, body, more = problem_of(error)
    headers = [(name.lower().encode(), value.encode()) for name, value in more.items()]
    return Answer(status, headers, body)


async def _send(send: Send, answer: Answer) -> None:
    headers = [*answer.headers, *SECURITY_HEADERS]
    if answer.body:
        headers += [_JSON, (b"content-length", b"%d" % len(answer.body))]
    await send({"type": "http.response.start", "status": answer.status, "headers": headers})
    await send({"type": "http.response.body", "body": answer.body})
