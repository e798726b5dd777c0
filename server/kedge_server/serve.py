"""Runs the application under uvicorn."""

from __future__ import annotations

import fcntl
import gc
import socket
import ssl
import sys
from pathlib import Path
from typing import IO, Any, Literal

import uvicorn

from kedge_server.app import TOKEN_FILE, create_app, open_context
from kedge_server.settings import ServerSettings
from kedge_server.transport import PlainHttpRefusal
from kedge_shared.errors import InputError, ServiceError, StorageError

_STOP_SECONDS = 3
#: For how long a thread may keep Python to itself while others wait, seconds. With Python's own
#: 5 ms every answer that is sent while the scheduler works waits that long for its turn.
_TURN_SECONDS = 0.0005


def serve(settings: ServerSettings) -> None:
    """Serves until SIGTERM or SIGINT.

    Raises:
        KedgeError: Settings, keys or data cannot be used, or the port is taken.
    """
    listening = _listen(settings.host, settings.port)
    lock = _lock(settings.data)
    context = open_context(settings)
    host, port = listening.getsockname()[:2]
    scheme = "https" if settings.tls_certificate else "http"
    token = settings.data / TOKEN_FILE
    where = "KEDGE_SERVER_OPERATOR_TOKEN" if settings.operator_token else str(token)
    print(f"kedge server: {scheme}://{host}:{port}, operator token in {where}", flush=True)
    config = uvicorn_config(
        PlainHttpRefusal(create_app(context), settings.plain_http_from),
        forwarded_allow_ips=settings.trusted_proxies,
        ssl_certfile=settings.tls_certificate,
        ssl_keyfile=settings.tls_key,
    )
    _prefer_answers()
    with lock:
        _run(config, listening)


def _prefer_answers() -> None:
    """Keeps what runs beside the answers from holding them up.

    The index of a fleet lives as long as the server, and a collector that looks through 100,000
    boards again and again stops every answer meanwhile (gc.freeze).
    """
    sys.setswitchinterval(_TURN_SECONDS)
    gc.collect()
    gc.freeze()


def uvicorn_config(
    app: Any, lifespan: Literal["auto", "on", "off"] = "auto", **more: Any
) -> uvicorn.Config:
    """Returns how an application is served: loop and parser are uvloop and httptools."""
    return uvicorn.Config(
        app,
        lifespan=lifespan,
        loop="uvloop",
        http="httptools",
        log_level="warning",
        access_log=False,
        timeout_graceful_shutdown=_STOP_SECONDS,
        server_header=False,
        **more,
    )


def _run(config: uvicorn.Config, listening: socket.socket) -> None:
    try:
        config.load()
    except (OSError, ssl.SSLError) as error:
        raise InputError(
            f"certificate {config.ssl_certfile} cannot be used: {error}",
            "set KEDGE_SERVER_TLS_CERTIFICATE and KEDGE_SERVER_TLS_KEY to PEM files",
        ) from None
    uvicorn.Server(config).run(sockets=[listening])


def _lock(data: Path) -> IO[bytes]:
    """Keeps a second server from the folder: two directors would sign past each other.

    Returns:
        The lock; it holds until closed, and ends with the process.
    """
    try:
        data.mkdir(mode=0o700, parents=True, exist_ok=True)
        file = (data / "server.lock").open("wb")
    except OSError as error:
        raise StorageError(f"{data} cannot be written: {error.strerror}") from None
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        what = f"another server runs on {data}"
        raise ServiceError(what, "stop it or choose another --data") from None
    return file


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
