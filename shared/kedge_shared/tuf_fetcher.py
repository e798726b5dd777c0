"""python-tuf's download port over httpx, so that tokens, limits and keep-alive are ours."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
from tuf.api.exceptions import DownloadError, DownloadHTTPError
from tuf.ngclient import FetcherInterface

from kedge_shared.pace import LEAST_RATE, LeastRate, Pace


class HttpxFetcher(FetcherInterface):
    """Fetches TUF metadata and targets; python-tuf enforces the length limits while it reads.

    Args:
        http: Carries base headers (authorisation) and timeouts.
        least: Rate under which a server counts as silent.
    """

    def __init__(self, http: httpx.Client, least: LeastRate = LEAST_RATE) -> None:
        self._http, self._least = http, least

    def _fetch(self, url: str) -> Iterator[bytes]:
        """Streams ``url``.

        Raises:
            DownloadHTTPError: The server answered with an error.
            DownloadError: It did not answer, or drips.
        """
        try:
            with self._http.stream("GET", url) as answer:
                if not answer.is_success:
                    raise DownloadHTTPError(f"{url}: {answer.status_code}", answer.status_code)
                pace = Pace(self._least)
                for chunk in answer.iter_raw():
                    pace.take(len(chunk))
                    yield chunk
        except httpx.TransportError as error:
            raise DownloadError(f"{url}: {type(error).__name__}") from error
