"""A bundle as httpx's transport: the repository's client and the downloader ask it like a server.

So there is one code that verifies, whatever way the bytes come.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Iterator
from typing import BinaryIO

import anyio.to_thread
import httpx

from kedge_agent.bundles.files import BundleFiles

#: Where the bundle seems to be; no name that resolves.
ADDRESS = "https://bundle.invalid"
_CHUNK_BYTES = 256 * 1024
_RANGE = re.compile(r"^bytes=(\d{1,15})-$")
_ROUTES = (
    (re.compile(r"^/tuf/metadata/([^/]+)$"), "metadata/"),
    # A target is asked for by its hash and name: consistent snapshots, TUF specification 6.2.
    (re.compile(r"^/tuf/targets/(?:[^/]+/)*([0-9a-f]{64})\.[^/]+$"), "artifacts/"),
    (re.compile(r"^/api/v1/artifacts/([0-9a-f]{64})$"), "artifacts/"),
)


class BundleTransport(httpx.BaseTransport, httpx.AsyncBaseTransport):
    """Answers from a bundle's files; what it does not have is a 404.

    Args:
        files: Of the bundle.
    """

    def __init__(self, files: BundleFiles) -> None:
        self._files = files

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Answers the repository's client."""
        return self._answer(request)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Answers the downloader."""
        return self._answer(request)

    def _answer(self, request: httpx.Request) -> httpx.Response:
        name = member_of(request.url.path)
        found = self._files.open(name) if name and request.method == "GET" else None
        if found is None:
            return httpx.Response(404, request=request)
        file, length = found
        asked = _RANGE.match(request.headers.get("Range", ""))
        at = int(asked[1]) if asked else 0
        if at > length:
            file.close()
            return httpx.Response(416, request=request)
        file.seek(at)
        headers = {"Content-Length": str(length - at)}
        if asked:
            headers["Content-Range"] = f"bytes {at}-{length - 1}/{length}"
        body = _Body(file)
        return httpx.Response(206 if asked else 200, headers=headers, stream=body, request=request)


def member_of(path: str) -> str:
    """Returns the bundle's file for a server's path; empty if no bundle has one."""
    for pattern, folder in _ROUTES:
        match = pattern.match(path)
        if match:
            return folder + match[1]
    return ""


class _Body(httpx.SyncByteStream, httpx.AsyncByteStream):
    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    def __iter__(self) -> Iterator[bytes]:
        while chunk := self._read():
            yield chunk

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while chunk := await anyio.to_thread.run_sync(self._read):
            yield chunk

    def _read(self) -> bytes:
        try:
            return self._file.read(_CHUNK_BYTES)
        except OSError as error:
            raise httpx.ReadError(f"the bundle cannot be read any more: {error.strerror}") from None

    def close(self) -> None:
        self._file.close()

    async def aclose(self) -> None:
        self._file.close()
