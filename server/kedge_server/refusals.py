"""Limits what strangers may try: routes that ask for no token of an enrolled party.

A token has 192 bits and is not guessed; what is limited is load, and attempts on anything weaker
that comes to such a route later. Counted are refusals alone, so that a hall of boards behind one
address enrols at once. Routes that ask for a token are not limited: a refusal there costs a hash,
and whoever shares a fleet's address could lock it out.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from ipaddress import IPv6Address, ip_address

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from kedge_server.throttle import Rate, Throttle

#: (method, path) of routes that a stranger may call and that do some work for it.
OPEN_ROUTES = frozenset({("POST", "/api/v1/enrol")})
_REFUSED = frozenset({400, 401, 403, 409, 413, 422})
_BUSY = b'{"error":"too many attempts from this address","mend":"wait as Retry-After says"}'


class RefusalLimit:
    """ASGI middleware that answers 429 before anything of a request's body is read.

    Args:
        app: The application.
        throttle: Keeps the attempts.
        rate: Of each address.
        clock: Seconds.
    """

    def __init__(
        self, app: ASGIApp, throttle: Throttle, rate: Rate,
        clock: Callable[[], float] = time.time,
    ) -> None:  # fmt: skip
        self._app, self._throttle, self._rate, self._clock = app, throttle, rate, clock

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes a request on, or refuses it."""
        if scope["type"] != "http" or (scope["method"], scope["path"]) not in OPEN_ROUTES:
            await self._app(scope, receive, send)
            return
        address = address_of(scope)
        if not address:
            await self._app(scope, receive, send)
            return
        key = ("refused", address)
        wait = self._throttle.wait(key, self._rate, self._clock())
        if wait > 0:
            await _refuse(send, wait)
            return

        async def counted(message: Message) -> None:
            if message["type"] == "http.response.start" and message["status"] in _REFUSED:
                self._throttle.spend(key, self._rate, self._clock())
            await send(message)

        await self._app(scope, receive, counted)


def address_of(scope: Scope) -> str:
    """Returns whom attempts are counted for; empty for this machine itself.

    A subscriber has a whole /64 of IPv6. Behind a reverse proxy on this machine uvicorn puts the
    address in that ``X-Forwarded-For`` names.
    """
    host = scope["client"][0] if scope.get("client") else ""
    try:
        found = ip_address(host)
    except ValueError:
        return host
    if isinstance(found, IPv6Address) and found.ipv4_mapped is not None:
        found = found.ipv4_mapped
    if found.is_loopback:
        return ""
    if isinstance(found, IPv6Address):
        return str(IPv6Address(int(found) >> 64 << 64))
    return str(found)


async def _refuse(send: Send, wait: float) -> None:
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(_BUSY)).encode()),
        (b"retry-after", str(int(wait) + 1).encode()),
    ]
    await send({"type": "http.response.start", "status": 429, "headers": headers})
    await send({"type": "http.response.body", "body": _BUSY})
