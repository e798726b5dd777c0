"""Runs the application under uvicorn."""

from __future__ import annotations

import socket

import uvicorn

from kedge_server.app import TOKEN_FILE, create_app, open_context
from kedge_server.settings import ServerSettings
from kedge_shared.errors import ServiceError

_STOP_SECONDS = 3


def serve(settings: ServerSettings) -> None:
    """Serves until SIGTERM or SIGINT.

    Raises:
        KedgeError: Settings, keys or data cannot be used, or the port is taken.
    """
    listening = _listen(settings.host, settings.port)
    context = open_context(settings)
    host, port = listening.getsockname()[:2]
    token = settings.data / TOKEN_FILE
    where = "KEDGE_SERVER_OPERATOR_TOKEN" if settings.operator_token else str(token)
    print(f"kedge server: http://{host}:{port}, operator token in {where}", flush=True)
    config = uvicorn.Config(
        create_app(context),
        log_level="warning",
        access_log=False,
        timeout_graceful_shutdown=_STOP_SECONDS,
        server_header=False,
    )
    uvicorn.Server(config).run(sockets=[listening])


def _listen(host: str, port: int) -> socket.socket:
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        listening = socket.socket(family)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((host, port))
        listening.listen(2048)
    except OSError as error:
        raise ServiceError(
            f"cannot listen on {host}:{port}: {error.strerror}", "choose another --port"
        ) from None
    return listening
