"""Limits what strangers may try: routes that ask for no token of an enrolled party.

A token has 192 bits and is not guessed; what is limited is load, and attempts on anything weaker
that comes to such a route later. Counted are refusals alone, so that a hall of boards behind one
address enrols at once. Routes that ask for a token are not limited: a refusal there costs a hash,
and whoever shares a fleet's address could lock it out.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from ipaddress import IPv6Address, ip_address

from starlette.types import ASGIApp, Message, Receive, Scope, Send

#: (method, path) of routes that a stranger may call and that do some work for it.
OPEN_ROUTES = frozenset({("POST", "/api/v1/enrol")})
_REFUSED = frozenset({400, 401, 403, 409, 413, 422})
_BUSY = b'{"error":"too many attempts from this address","mend":"wait as Retry-After says"}'


class Budget:
    """So many attempts an address, growing back over time (a token bucket).

    The event loop alone calls it, so there is no lock.

    Args:
        attempts: At once.
        per_minute: Growing back.
        addresses: Kept at the most; the one that was quiet longest is forgotten first.
    """

    def __init__(self, attempts: int, per_minute: float, addresses: int = 10_000) -> None:
        self._most, self._rate, self._addresses = float(attempts), per_minute / 60, addresses
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def wait(self, address: str, now: float) -> float:
        """Returns how long an address has to wait before its next attempt, seconds."""
        left = self._now(address, now)
        return 0.0 if left >= 1 else (1 - left) / self._rate

    def spend(self, address: str, now: float) -> None:
        """Counts a refused attempt."""
        self._left[address] = (max(0.0, self._now(address, now) - 1), now)
        self._left.move_to_end(address)
        while len(self._left) > self._addresses:
            self._left.popitem(last=False)

    def _now(self, address: str, now: float) -> float:
        left, at = self._left.get(address, (self._most, now))
        return min(self._most, left + max(0.0, now - at) * self._rate)


class Throttle:
    """ASGI middleware that answers 429 before anything of a request's body is read.

    Args:
        app: The application.
        budget: Of each address.
        clock: Seconds, never going back.
    """

    def __init__(
        self, app: ASGIApp, budget: Budget, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._app, self._budget, self._clock = app, budget, clock

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes a request on, or refuses it."""
        if scope["type"] != "http" or (scope["method"], scope["path"]) not in OPEN_ROUTES:
            await self._app(scope, receive, send)
            return
        address = address_of(scope)
        if not address:
            await self._app(scope, receive, send)
            return
        wait = self._budget.wait(address, self._clock())
        if wait > 0:
            await _refuse(send, wait)
            return

        async def counted(message: Message) -> None:
            if message["type"] == "http.response.start" and message["status"] in _REFUSED:
                self._budget.spend(address, self._clock())
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
