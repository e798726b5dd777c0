"""An MQTT 3.1.1 broker as far as one publisher sees it: what came, and what it would have told."""

from __future__ import annotations

import socket
import ssl
import struct
import threading
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from tests.sim.ports import steady_port
from tests.waiting import PATIENCE

_CONNECT, _CONNACK, _PUBLISH, _PUBACK, _PING, _PONG, _DISCONNECT = 1, 2, 3, 4, 12, 13, 14


@dataclass(frozen=True)
class Message:
    """One that was published; ``last_will`` where the broker did so for a client that vanished."""

    topic: str
    body: bytes
    qos: int
    retain: bool
    again: bool = False
    last_will: bool = False


@dataclass
class SimBroker:
    """Listens on loopback.

    Attributes:
        tls: To speak it, or ``None``.
        credentials: Who may come; ``None`` is everybody.
        acknowledges: Confirms messages of quality 1.
        reads: Takes what is sent; a broker that hangs does not.
        messages: What came, in order.
        clients: Names of those that came.
    """

    tls: ssl.SSLContext | None = None
    credentials: tuple[str, str] | None = None
    acknowledges: bool = True
    reads: bool = True
    messages: list[Message] = field(default_factory=list)
    clients: list[str] = field(default_factory=list)
    port: int = 0

    def __post_init__(self) -> None:
        self._open: set[socket.socket] = set()
        self.start()

    def start(self) -> None:
        """Listens, at the same port as before."""
        self.port = self.port or steady_port()
        self._listening = socket.create_server(("127.0.0.1", self.port))
        self._thread = threading.Thread(target=self._accept, args=(self._listening,), daemon=True)
        self._thread.start()

    def kill(self) -> None:
        """Is gone at once, with all its connections."""
        self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        self._thread.join(PATIENCE)
        self.cut()

    def cut(self) -> None:
        """Breaks every connection."""
        for each in list(self._open):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)

    def bodies(self, topic: str) -> list[bytes]:
        return [each.body for each in self.messages if each.topic == topic]

    def _accept(self, listening: socket.socket) -> None:
        with suppress(OSError):
            while True:
                client, _ = listening.accept()
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, plain: socket.socket) -> None:
        client = plain
        will: Message | None = None
        with suppress(OSError, EOFError):
            if self.tls is not None:
                client = self.tls.wrap_socket(plain, server_side=True)
            self._open.add(client)
            will = self._connected(client)
            while self._one(client):
                pass
            will = None  # it said goodbye
        if will is not None:
            self.messages.append(will)
        self._open.discard(client)
        client.close()

    def _connected(self, client: socket.socket) -> Message | None:
        kind, _, body = _packet(client)
        assert kind == _CONNECT
        flags, rest = body[7], body[10:]
        name, rest = _text(rest)
        self.clients.append(name.decode())
        will = None
        if flags & 4:
            topic, rest = _text(rest)
            text, rest = _text(rest)
            will = Message(topic.decode(), text, flags >> 3 & 3, bool(flags & 32), last_will=True)
        given = []
        while rest:
            text, rest = _text(rest)
            given.append(text.decode())
        if self.credentials is not None and tuple(given) != self.credentials:
            client.sendall(bytes([_CONNACK << 4, 2, 0, 5]))
            raise EOFError
        client.sendall(bytes([_CONNACK << 4, 2, 0, 0]))
        return will

    def _one(self, client: socket.socket) -> bool:
        while not self.reads:
            threading.Event().wait(0.01)
        kind, flags, body = _packet(client)
        if kind == _PUBLISH:
            self._published(client, flags, body)
        elif kind == _PING:
            client.sendall(bytes([_PONG << 4, 0]))
        return kind != _DISCONNECT

    def _published(self, client: socket.socket, flags: int, body: bytes) -> None:
        topic, rest = _text(body)
        qos = flags >> 1 & 3
        if qos:
            number, rest = rest[:2], rest[2:]
            if self.acknowledges:
                client.sendall(bytes([_PUBACK << 4, 2]) + number)
        self.messages.append(
            Message(topic.decode(), rest, qos, bool(flags & 1), again=bool(flags & 8))
        )


def _packet(client: socket.socket) -> tuple[int, int, bytes]:
    first = _exactly(client, 1)[0]
    length, shift = 0, 0
    while True:
        digit = _exactly(client, 1)[0]
        length |= (digit & 127) << shift
        shift += 7
        if not digit & 128:
            return first >> 4, first & 15, _exactly(client, length)


def _exactly(client: Any, count: int) -> bytes:
    found = b""
    while len(found) < count:
        more = client.recv(count - len(found))
        if not more:
            raise EOFError
        found += more
    return found


def _text(data: bytes) -> tuple[bytes, bytes]:
    (length,) = struct.unpack_from(">H", data)
    return data[2 : 2 + length], data[2 + length :]
