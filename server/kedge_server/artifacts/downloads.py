"""Sends artifacts, to so many at once as the server's line bears."""

from __future__ import annotations

import random
from collections.abc import Mapping

from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send

from kedge_server.artifacts.slots import Slots
from kedge_server.context import Context

#: What those are told to wait who find no slot: spread, so that they do not return together.
_LEAST_SECONDS, _SPREAD_SECONDS = 5, 10


class _Admitted(Response):
    """An answer that holds a slot while it is sent, or is 503 where there is none."""

    def __init__(self, inner: Response, slots: Slots) -> None:
        super().__init__()
        self._inner, self._slots = inner, slots

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if not self._slots.free:
            await _full()(scope, receive, send)
            return
        self._slots.taken += 1
        try:
            await self._inner(scope, receive, send)
        finally:
            self._slots.taken -= 1


def _full() -> Response:
    seconds = _LEAST_SECONDS + int(random.random() * _SPREAD_SECONDS)  # noqa: S311 - spreads load
    problem = {"error": "every download slot is taken", "mend": f"ask again in {seconds} s"}
    return JSONResponse(problem, 503, {"Retry-After": str(seconds), "Cache-Control": "no-store"})


def download(services: Context, sha256: str, headers: Mapping[str, str]) -> Response:
    """Returns what sends an artifact, or the range that is asked for, when there is a slot.

    Raises:
        NotFoundError: It is not there.
    """
    return _Admitted(services.store.answer(sha256, headers), services.slots)
