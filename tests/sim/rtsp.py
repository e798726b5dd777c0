"""A camera on the network: RTSP over TCP with JPEG frames (RFC 2326, RFC 2435), on loopback."""

from __future__ import annotations

import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import cv2
import numpy as np

_SDP = (
    "v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=camera\r\nc=IN IP4 0.0.0.0\r\nt=0 0\r\n"
    "m=video 0 RTP/AVP 26\r\na=control:track\r\n"
)
_FRAGMENT = 1200


class RtspCamera:
    """Serves a grey picture whose brightness is the number of the frame.

    Attributes:
        sent: Frames sent, over all sessions.
        sessions: Clients that were served.
        silent: Sessions go on, but no frame comes any more.
    """

    def __init__(self, fps: float = 50.0) -> None:
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.url = f"rtsp://127.0.0.1:{self._listening.getsockname()[1]}/live"
        self._fps = fps
        self._client: socket.socket | None = None
        self.sent = self.sessions = 0
        self.silent = False
        threading.Thread(target=self._serve, daemon=True).start()

    def cut(self) -> None:
        """Breaks the session off."""
        if self._client is not None:
            self._client.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self.cut()
        self._listening.close()

    def _serve(self) -> None:
        while True:
            try:
                client, _ = self._listening.accept()
            except OSError:
                return
            self._client = client
            try:
                self._session(client)
            except OSError:
                continue
            finally:
                client.close()

    def _session(self, client: socket.socket) -> None:
        file = client.makefile("rb")
        while True:
            lines = []
            while line := file.readline().strip():
                lines.append(line.decode())
            if not lines:
                return
            number = next(each for each in lines if each.lower().startswith("cseq"))
            head, body = f"RTSP/1.0 200 OK\r\n{number}\r\nSession: 1\r\n", ""
            kind = lines[0].split()[0]
            if kind == "OPTIONS":
                head += "Public: OPTIONS, DESCRIBE, SETUP, PLAY, TEARDOWN\r\n"
            elif kind == "DESCRIBE":
                body = _SDP
                head += f"Content-Type: application/sdp\r\nContent-Length: {len(body)}\r\n"
            elif kind == "SETUP":
                head += "Transport: RTP/AVP/TCP;unicast;interleaved=0-1\r\n"
            client.sendall((head + "\r\n" + body).encode())
            if kind == "PLAY":
                self.sessions += 1
                self._play(client)
                return

    def _play(self, client: socket.socket) -> None:
        sequence, started = 0, time.monotonic()
        while True:
            time.sleep(1 / self._fps)
            if self.silent:
                continue
            picture = np.full((64, 64, 3), 40 + self.sent % 200, np.uint8)
            stamp = int((time.monotonic() - started) * 90_000)
            for at, payload, last in _fragments(cv2.imencode(".jpg", picture)[1].tobytes()):
                header = struct.pack(
                    ">BBHII", 0x80, 26 | (0x80 if last else 0), sequence & 0xFFFF, stamp, 7
                )
                jpeg = struct.pack(">BBHBBBB", 0, at >> 16, at & 0xFFFF, 1, 255, 8, 8)
                packet = header + jpeg + payload
                client.sendall(b"$\0" + struct.pack(">H", len(packet)) + packet)
                sequence += 1
            self.sent += 1


def _fragments(jpeg: bytes) -> Iterator[tuple[int, bytes, bool]]:
    """Yields offset, payload and whether it is the last; the tables go with the first."""
    tables, at = b"", 2
    while True:
        marker, length = jpeg[at + 1], struct.unpack(">H", jpeg[at + 2 : at + 4])[0]
        body = jpeg[at + 4 : at + 2 + length]
        if marker == 0xDB:
            while body:
                tables, body = tables + body[1:65], body[65:]
        at += 2 + length
        if marker == 0xDA:
            break
    scan = jpeg[at : jpeg.rindex(b"\xff\xd9")]
    for begin in range(0, len(scan), _FRAGMENT):
        part = scan[begin : begin + _FRAGMENT]
        quantizers = struct.pack(">BBH", 0, 0, len(tables)) + tables if begin == 0 else b""
        yield begin, quantizers + part, begin + _FRAGMENT >= len(scan)


@contextmanager
def rtsp_camera() -> Iterator[RtspCamera]:
    camera = RtspCamera()
    yield camera
    camera.close()
