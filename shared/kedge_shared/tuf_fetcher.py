"""python-tuf's download port over httpx, so that tokens, limits and keep-alive are ours."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

import httpx
from tuf.api.exceptions import DownloadError, DownloadHTTPError
from tuf.ngclient import FetcherInterface

from kedge_shared.pace import LEAST_RATE, LeastRate, Pace

#: From the request to the end of the answer's headers.
HEADERS_SECONDS = 120.0
_OPENED = frozenset({"connection.connect_tcp.complete", "connection.start_tls.complete"})


class HttpxFetcher(FetcherInterface):
    """Fetches TUF metadata and targets; python-tuf enforces the length limits while it reads.

    Args:
        http: Carries base headers (authorisation) and timeouts.
        least: Rate under which a server counts as silent.
        headers_seconds: How long its headers may take.
    """

    def __init__(
        self,
        http: httpx.Client,
        least: LeastRate = LEAST_RATE,
        headers_seconds: float = HEADERS_SECONDS,
    ) -> None:
        self._http, self._least, self._headers_seconds = http, least, headers_seconds
        self._socket: socket.socket | None = None

    def _fetch(self, url: str) -> Iterator[bytes]:
        """Streams ``url``.

        Raises:
            DownloadHTTPError: The server answered with an error.
            DownloadError: It did not answer, or drips.
        """
        try:
            with self._answer(url) as answer:
                if not answer.is_success:
                    raise DownloadHTTPError(f"{url}: {answer.status_code}", answer.status_code)
                pace = Pace(self._least)
                for chunk in answer.iter_raw():
                    pace.take(len(chunk))
                    yield chunk
        except (httpx.TransportError, httpx.InvalidURL) as error:
            raise DownloadError(f"{url}: {type(error).__name__}") from error

    @contextmanager
    def _answer(self, url: str) -> Iterator[httpx.Response]:
        """Waits for headers, not longer than they may take.

        httpx's timeouts are of silence; one byte of a header every so often would hold this
        thread for days. So a timer cuts the line, which the read that waits on it notices.
        """
        timer = threading.Timer(self._headers_seconds, self._cut)
        timer.daemon = True
        request = self._http.build_request(
            "GET", url, headers={"Accept-Encoding": "identity"}, extensions={"trace": self._note}
        )
        timer.start()
        try:
            answer = self._http.send(request, stream=True)
        finally:
            timer.cancel()
        try:
            yield answer
        finally:
            answer.close()

    def _note(self, event: str, info: Mapping[str, Any]) -> None:
        if event in _OPENED:
            self._socket = info["return_value"].get_extra_info("socket")

    def _cut(self) -> None:
        if self._socket is not None:
            with suppress(OSError):
                self._socket.shutdown(socket.SHUT_RDWR)
