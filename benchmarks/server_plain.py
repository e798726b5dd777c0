"""An application that answers every poll the same: what the server under Kedge can do at most."""

from __future__ import annotations

import socket

import uvicorn
from uvicorn._types import ASGIReceiveCallable, ASGISendCallable, Scope

from kedge_server.serve import uvicorn_config

_HEADERS = [
    (b"etag", b'"1790000000-1790000000"'), (b"x-kedge-next-poll", b"60"),
    (b"x-kedge-timestamp-version", b"1790000000"), (b"x-kedge-nonce", b"0123456789abcdef"),
    (b"cache-control", b"no-store"), (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"), (b"x-frame-options", b"DENY"),
    (b"content-security-policy", b"frame-ancestors 'none'"),
    (b"cross-origin-resource-policy", b"same-origin"),
]  # fmt: skip


async def answer(scope: Scope, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
    """Answers 304."""
    if scope["type"] == "http":
        await send({"type": "http.response.start", "status": 304, "headers": _HEADERS,
                    "trailers": False})  # fmt: skip
        await send({"type": "http.response.body", "body": b"", "more_body": False})


def main() -> None:
    """Serves until SIGTERM."""
    listening = socket.create_server(("127.0.0.1", 0), backlog=2048)
    print(f"plain server: http://127.0.0.1:{listening.getsockname()[1]}", flush=True)
    uvicorn.Server(uvicorn_config(answer, lifespan="off")).run(sockets=[listening])
