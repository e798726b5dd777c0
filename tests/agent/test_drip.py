"""A server that drips: never silent, never done, and not waited for."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from tuf.api.exceptions import DownloadError

from kedge_agent import downloads
from kedge_agent.blobs import BlobStore
from kedge_agent.downloads import Downloader, Patience
from kedge_agent.network.backoff import Backoff
from kedge_agent.server_client import ServerClient
from kedge_shared.errors import ServiceError
from kedge_shared.ids import sha256_hex
from kedge_shared.pace import LEAST_RATE, LeastRate, Pace
from kedge_shared.tuf_fetcher import HttpxFetcher
from tests.waiting import PATIENCE, wait_for

BODY = bytes(range(250)) * 4
HEAD = f"HTTP/1.1 200 OK\r\nContent-Length: {len(BODY)}\r\n\r\n".encode()
#: A hundredth of what the drip below would need for everything.
LEAST = LeastRate(bytes_per_second=5_000, window_seconds=0.2)


class Drip:
    """Serves ``BODY`` to everyone: ``at_once`` bytes of the answer whole, the rest slowly.

    Attributes:
        at_once: Bytes that come at once.
        piece: Bytes in each drop after them.
        answers: How often it was asked.
    """

    def __init__(self) -> None:
        self.at_once, self.piece, self.answers = len(HEAD), 1, 0
        self.url = ""

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.answers += 1
        whole = HEAD + BODY
        try:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(whole[: self.at_once])
            for at in range(self.at_once, len(whole), self.piece):
                writer.write(whole[at : at + self.piece])
                await writer.drain()
                await asyncio.sleep(0.02)
        except OSError:
            pass  # whoever asked has gone
        finally:
            writer.close()

    async def serve(self, listening: threading.Event, enough: asyncio.Event) -> None:
        server = await asyncio.start_server(self.answer, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        listening.set()
        await enough.wait()
        server.close()
        rest = asyncio.all_tasks() - {asyncio.current_task()}
        for each in rest:
            each.cancel()
        await asyncio.gather(*rest, return_exceptions=True)


@pytest.fixture
def drip(monkeypatch: pytest.MonkeyPatch) -> Iterator[Drip]:
    monkeypatch.setattr(downloads, "_BACKOFF", Backoff(longest_seconds=0.0))
    found, listening = Drip(), threading.Event()
    loop, enough = asyncio.new_event_loop(), asyncio.Event()
    thread = threading.Thread(target=loop.run_until_complete, args=[found.serve(listening, enough)])
    thread.start()
    assert listening.wait(PATIENCE)
    yield found
    loop.call_soon_threadsafe(enough.set)
    thread.join(PATIENCE)
    loop.close()


def fetch(drip: Drip, home: Path, patience: Patience) -> BlobStore:
    store = BlobStore(home / "blobs")

    async def work() -> None:
        async with httpx.AsyncClient(base_url=drip.url, timeout=PATIENCE) as http:
            loader = Downloader(http, store, home / "partial", lambda _: None, patience)
            await asyncio.wait_for(loader.fetch(sha256_hex(BODY), len(BODY)), PATIENCE)

    asyncio.run(work())
    return store


def test_a_dripping_download_is_given_up(drip: Drip, tmp_path: Path) -> None:
    with pytest.raises(ServiceError, match="broke off"):
        fetch(drip, tmp_path, Patience(body=LEAST))
    # One that brings a byte more than those before it begins the count anew.
    wait_for(lambda: drip.answers >= 6)


def test_dripping_headers_of_a_download_are_given_up(drip: Drip, tmp_path: Path) -> None:
    drip.at_once = 5
    with pytest.raises(ServiceError, match="broke off"):
        fetch(drip, tmp_path, Patience(headers_seconds=0.2))
    wait_for(lambda: drip.answers == 6)


def test_a_slow_server_that_brings_enough_is_waited_for(drip: Drip, tmp_path: Path) -> None:
    drip.piece = 20
    least = LeastRate(bytes_per_second=0.5, window_seconds=0.2)  # also if it stalls
    store = fetch(drip, tmp_path, Patience(headers_seconds=PATIENCE, body=least))
    assert store.has(sha256_hex(BODY))
    assert drip.answers == 1


@pytest.mark.parametrize("at_once", [5, len(HEAD)])
def test_a_dripping_answer_is_given_up(drip: Drip, at_once: int) -> None:
    drip.at_once = at_once

    async def work() -> None:
        async with ServerClient(drip.url, answer_seconds=0.3) as server:
            await asyncio.wait_for(server.poll("", 0), PATIENCE)

    with pytest.raises(ServiceError, match="does not answer"):
        asyncio.run(work())


def test_dripping_metadata_is_given_up(drip: Drip) -> None:
    with httpx.Client() as http:
        fetcher = HttpxFetcher(http, LEAST)
        with pytest.raises(DownloadError, match="ReadTimeout"):
            list(fetcher.fetch(f"{drip.url}/tuf/metadata/timestamp.json"))


def test_dripping_headers_of_metadata_are_given_up(drip: Drip) -> None:
    drip.at_once = 5
    with httpx.Client() as http:
        fetcher = HttpxFetcher(http, headers_seconds=0.3)
        for answers in (1, 2):  # the second time over a new line
            with pytest.raises(DownloadError):
                list(fetcher.fetch(f"{drip.url}/tuf/metadata/timestamp.json"))
            wait_for(lambda n=answers: drip.answers == n)  # type: ignore[misc]


def test_the_rate_is_held_in_every_window_anew() -> None:
    now = 0.0
    pace = Pace(LEAST_RATE, lambda: now)
    pace.take(1_000_000)
    now = 61.0
    pace.take(1)
    now = 122.0
    with pytest.raises(httpx.ReadTimeout):
        pace.take(1)
