"""python-tuf's download port over httpx, so that tokens, limits and keep-alive are ours."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
from tuf.api.exceptions import DownloadError, DownloadHTTPError
from tuf.ngclient import FetcherInterface


class HttpxFetcher(FetcherInterface):
    """Fetches TUF metadata and targets; python-tuf enforces the length limits while it reads.

    Args:
        http: Carries base headers (authorisation) and timeouts.
    """

    def __init__(self, http: httpx.Client) -> None:
        self._http = http

    def _fetch(self, url: str) -> Iterator[bytes]:
        """Streams ``url``.

        Raises:
            DownloadHTTPError: The server answered with an error.
            DownloadError: It did not answer.
        """
        try:
            with self._http.stream("GET", url) as answer:
                if not answer.is_success:
                    raise DownloadHTTPError(f"{url}: {answer.status_code}", answer.status_code)
                yield from answer.iter_raw()
        except httpx.TransportError as error:
            raise DownloadError(f"{url}: {type(error).__name__}") from error
