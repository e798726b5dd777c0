"""Detections over HTTP, of this machine alone unless it is said: latest, stream, picture.

| address | answers |
|---|---|
| ``/detections`` | JSON: source → its latest result |
| ``/events`` | server-sent events, one a result |
| ``/snapshot.jpg?source=NAME`` | the latest frame, annotated |
"""

from __future__ import annotations

import queue
import socket
import threading
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from kedge_agent.sinks.base import Result, as_json
from kedge_agent.sinks.drawing import as_jpeg
from kedge_agent.specs import is_loopback
from kedge_shared.errors import InputError

#: Clients at once, streams included: each holds a thread.
_MOST_CLIENTS = 16
#: Results that may wait for one stream; a client that reads no more is let go after the timeout.
_STREAM_ROOM = 64
_CLIENT_SECONDS = 10.0
#: A comment now and then shows a stream that its client is gone.
_ALIVE_SECONDS = 5.0


class Http:
    """Answers on a port.

    Args:
        address: To listen at.
        port: To listen at; 0 takes a free one.

    Attributes:
        port: It listens at.

    Raises:
        InputError: The port is taken.
    """

    def __init__(self, address: str, port: int) -> None:
        self._local = is_loopback(address)
        self._lock = threading.Lock()
        self._latest: dict[str, Result] = {}
        self._streams: set[queue.Queue[bytes | None]] = set()
        try:
            self._server = _Server((address, port), self)
        except OSError as error:
            where = f"{address}:{port}"
            raise InputError(f"sink http cannot listen at {where}: {error.strerror}") from None
        self.port = int(self._server.server_address[1])
        threading.Thread(
            target=self._server.serve_forever, args=(0.2,), name="sink http server", daemon=True
        ).start()

    def put(self, result: Result) -> None:
        """Keeps it as the latest and sends it to every stream."""
        line = as_json(result)
        with self._lock:
            self._latest[result.source] = result
            streams = list(self._streams)
        for each in streams:
            # A client that does not read loses events; the others and the sink go on.
            with suppress(queue.Full):
                each.put_nowait(line)

    def close(self) -> None:
        """Ends the streams and the port."""
        with self._lock:
            streams = list(self._streams)
        for each in streams:
            with suppress(queue.Full):
                each.put_nowait(None)
        self._server.shutdown()
        self._server.server_close()

    def latest(self) -> dict[str, Result]:
        """Returns the latest result of each source."""
        with self._lock:
            return dict(self._latest)

    def subscribe(self) -> queue.Queue[bytes | None]:
        """Returns a queue that gets each result as JSON, and ``None`` at the end."""
        stream: queue.Queue[bytes | None] = queue.Queue(_STREAM_ROOM)
        with self._lock:
            self._streams.add(stream)
        return stream

    def unsubscribe(self, stream: queue.Queue[bytes | None]) -> None:
        """Ends a subscription."""
        with self._lock:
            self._streams.discard(stream)

    def allows(self, host: str) -> bool:
        """Says whether a request is meant for us.

        A web page elsewhere can give its own name this machine's address and have a browser here
        read the camera (DNS rebinding); the name it used stands in ``Host``.
        """
        if not self._local:
            return True
        name = urlsplit(f"//{host}").hostname or ""
        return name == "localhost" or is_loopback(name)


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, address: tuple[str, int], sink: Http) -> None:
        self.sink = sink
        self._free = threading.BoundedSemaphore(_MOST_CLIENTS)
        if ":" in address[0]:
            self.address_family = socket.AF_INET6
        super().__init__(address, _Handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        """Takes a client if there is room; else it is let go at once."""
        if self._free.acquire(blocking=False):
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Answers one client."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._free.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that goes away in the midst is no news."""


class _Handler(BaseHTTPRequestHandler):
    timeout = _CLIENT_SECONDS
    server: _Server

    def do_GET(self) -> None:
        """Answers one request."""
        sink, asked = self.server.sink, urlsplit(self.path)
        if not sink.allows(self.headers.get("Host", "")):
            self._say(403, b"this address is for this machine alone\n", "text/plain")
        elif asked.path == "/detections":
            found = b",".join(
                b'"%s":%s' % (name.encode(), as_json(each)) for name, each in sink.latest().items()
            )
            self._say(200, b"{" + found + b"}\n", "application/json")
        elif asked.path == "/snapshot.jpg":
            self._snapshot(sink, parse_qs(asked.query).get("source", []))
        elif asked.path == "/events":
            self._stream(sink)
        else:
            self._say(404, b"/detections, /events or /snapshot.jpg\n", "text/plain")

    def _snapshot(self, sink: Http, names: list[str]) -> None:
        latest = sink.latest()
        wanted = latest.get(names[0]) if names else next(iter(latest.values()), None)
        if wanted is None:
            self._say(404, b"no frame of that source yet\n", "text/plain")
        else:
            self._say(200, as_jpeg(wanted), "image/jpeg")

    def _stream(self, sink: Http) -> None:
        stream = sink.subscribe()
        try:
            self._head(200, "text/event-stream")
            while True:
                try:
                    line = stream.get(timeout=_ALIVE_SECONDS)
                except queue.Empty:
                    self.wfile.write(b":\n\n")
                    continue
                if line is None:
                    return
                self.wfile.write(b"data: " + line + b"\n\n")
        except OSError:
            # The client is gone or reads no more.
            return
        finally:
            sink.unsubscribe(stream)

    def _say(self, status: int, body: bytes, kind: str) -> None:
        self._head(status, kind, len(body))
        self.wfile.write(body)

    def _head(self, status: int, kind: str, length: int | None = None) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Cache-Control", "no-store")
        if length is not None:
            self.send_header("Content-Length", str(length))
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        """Requests are not logged."""
