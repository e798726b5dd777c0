"""Plain HTTP goes no further than this machine: the server's side of that rule.

The clients refuse to *send* to ``http://`` elsewhere (kedge_shared.client.check_url); a server that
is reached so all the same, by a browser or another program, says what is wrong instead of taking
tokens in the clear. A proxy that ends TLS is believed what it says of its client (uvicorn's
``X-Forwarded-Proto`` and ``-For``) if it is among the trusted ones.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import TypeAlias

from starlette.types import ASGIApp, Receive, Scope, Send

from kedge_shared import wire
from kedge_shared.api import Problem
from kedge_shared.errors import InputError

Network: TypeAlias = "ipaddress.IPv4Network | ipaddress.IPv6Network"

_PROBLEM = Problem(
    error="plain HTTP beyond this machine is not taken",
    mend="put TLS in front (docs/server.md), or set KEDGE_SERVER_TLS_CERTIFICATE",
)


class PlainHttpRefusal:
    """Answers 403 to what came in the clear from another machine.

    Args:
        app: Everything behind.
        near: Networks that count as this machine: a container's own bridge.

    Raises:
        InputError: One is none.
    """

    def __init__(self, app: ASGIApp, near: str = "") -> None:
        self._app, self._body = app, wire.encode(_PROBLEM)
        self._near = tuple(_networks(near))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Lets TLS, this machine and what is no request through."""
        taken = scope["type"] != "http" or scope["scheme"] == "https"
        if taken or is_local(scope.get("client"), self._near):
            await self._app(scope, receive, send)
            return
        headers = [(b"content-type", b"application/json"), (b"connection", b"close"),
                   (b"content-length", str(len(self._body)).encode())]  # fmt: skip
        await send({"type": "http.response.start", "status": 403, "headers": headers})
        await send({"type": "http.response.body", "body": self._body})


def is_local(client: tuple[str, int] | None, near: Sequence[Network] = ()) -> bool:
    """Says whether a client is on this machine; a Unix socket's has no address."""
    return client is None or _is_near(client[0], tuple(near))


@lru_cache(maxsize=4096)
def _is_near(host: str, near: tuple[Network, ...]) -> bool:
    try:
        found = ipaddress.ip_address(host)
    except ValueError:
        return False
    found = getattr(found, "ipv4_mapped", None) or found
    return found.is_loopback or any(found in each for each in near)


def _networks(text: str) -> Iterator[Network]:
    for each in filter(None, (part.strip() for part in text.split(","))):
        try:
            yield ipaddress.ip_network(each)
        except ValueError:
            raise InputError(
                f"KEDGE_SERVER_PLAIN_HTTP_FROM: {each} is no network", "write 172.18.0.0/16"
            ) from None
