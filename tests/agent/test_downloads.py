"""Downloads: resumed where they broke off, and nothing is a blob before its hash holds."""

from __future__ import annotations

import asyncio
import errno
import gzip
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from kedge_agent import downloads
from kedge_agent.blobs import BlobStore
from kedge_agent.downloads import Downloader, backoff_seconds
from kedge_agent.network.backoff import Backoff
from kedge_shared.errors import ServiceError, StorageError, TrustError
from kedge_shared.ids import sha256_hex

BODY = bytes(range(256)) * 4000
NAME = sha256_hex(BODY)
Answer = Callable[[httpx.Request], httpx.Response]


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(downloads, "_BACKOFF", Backoff(longest_seconds=0.0))


class Origin:
    """Serves ranges as a server does, with faults on demand."""

    def __init__(self, body: bytes = BODY) -> None:
        self.body = body
        self.asked: list[str] = []
        self.break_after: list[int] = []
        self.statuses: list[int] = []
        self.ignore_range = False

    def __call__(self, request: httpx.Request) -> httpx.Response:
        begin = request.headers.get("range", "bytes=0-")
        self.asked.append(begin)
        if self.statuses:
            return httpx.Response(self.statuses.pop(0))
        at = 0 if self.ignore_range else int(begin.removeprefix("bytes=").rstrip("-"))
        if at and request.headers.get("if-range") != f'"{NAME}"':
            at = 0
        rest = self.body[at:]
        upto = self.break_after.pop(0) if self.break_after else None
        headers = {"Content-Range": f"bytes {at}-{len(self.body) - 1}/{len(self.body)}"}
        return httpx.Response(
            206 if at else 200, headers=headers if at else {}, stream=Stream(rest, upto)
        )


class Stream(httpx.AsyncByteStream):
    def __init__(self, body: bytes, upto: int | None) -> None:
        self.body, self.upto = body, upto

    async def __aiter__(self) -> Any:
        whole = self.body if self.upto is None else self.body[: self.upto]
        for at in range(0, len(whole), 10_000):
            yield whole[at : at + 10_000]
        if self.upto is not None:
            raise httpx.ReadError("cable pulled")


class Endless(httpx.AsyncByteStream):
    async def __aiter__(self) -> Any:
        while True:
            yield b"x" * 65536


def fetch(home: Path, answer: Answer, length: int = len(BODY), **options: Any) -> BlobStore:
    store = BlobStore(home / "blobs")

    async def work() -> None:
        transport = httpx.MockTransport(answer)
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as http:
            loader = Downloader(http, store, home / "partial", lambda _: None, **options)
            await loader.fetch(NAME, length)

    asyncio.run(work())
    return store


def stored(store: BlobStore) -> bytes:
    return store.read_verified(NAME, 10**9)


def test_a_whole_download(tmp_path: Path) -> None:
    origin = Origin()
    assert stored(fetch(tmp_path, origin)) == BODY
    assert list((tmp_path / "partial").iterdir()) == []
    fetch(tmp_path, origin)
    assert len(origin.asked) == 1, "what is there is not fetched again"


def test_it_goes_on_where_it_broke_off(tmp_path: Path) -> None:
    origin = Origin()
    origin.break_after = [300_000, 200_000]
    assert stored(fetch(tmp_path, origin)) == BODY
    assert origin.asked == ["bytes=0-", "bytes=300000-", "bytes=500000-"]


def test_it_goes_on_in_the_next_run(tmp_path: Path) -> None:
    origin = Origin()
    origin.break_after = [100_000, *[0] * 5]
    with pytest.raises(ServiceError, match="broke off"):
        fetch(tmp_path, origin)
    origin.asked.clear()
    assert stored(fetch(tmp_path, origin)) == BODY
    assert origin.asked == ["bytes=100000-"]


def test_a_server_that_ignores_ranges_is_taken_from_the_start(tmp_path: Path) -> None:
    origin = Origin()
    origin.break_after = [100_000]
    origin.ignore_range = True
    assert stored(fetch(tmp_path, origin)) == BODY


def test_a_torn_rest_of_an_earlier_run_is_fetched_anew(tmp_path: Path) -> None:
    (tmp_path / "partial").mkdir()
    # After a power cut: the right length, all zeros.
    (tmp_path / "partial" / NAME).write_bytes(bytes(500_000))
    origin = Origin()
    assert stored(fetch(tmp_path, origin)) == BODY
    assert origin.asked == ["bytes=500000-", "bytes=0-"]


@pytest.mark.parametrize("rotten", [bytes(len(BODY)), BODY[:-1], b"", BODY + b"x"])
def test_a_stored_file_that_the_disk_lost_is_fetched_anew(tmp_path: Path, rotten: bytes) -> None:
    (tmp_path / "blobs").mkdir()
    (tmp_path / "blobs" / NAME).write_bytes(rotten)
    assert stored(fetch(tmp_path, Origin())) == BODY


def test_altered_bytes_are_never_stored(tmp_path: Path) -> None:
    body = bytearray(BODY)
    body[12345] ^= 1
    with pytest.raises(TrustError, match="altered") as refused:
        fetch(tmp_path, Origin(bytes(body)))
    assert refused.value.code == "hash"
    assert [each for each in tmp_path.rglob("*") if each.is_file()] == []


def test_endless_bodies_end(tmp_path: Path) -> None:
    with pytest.raises(TrustError, match=f"more than {len(BODY)} bytes"):
        fetch(tmp_path, lambda _: httpx.Response(200, stream=Endless()))
    assert [each for each in tmp_path.rglob("*") if each.is_file()] == []


@pytest.mark.parametrize("status", [503, 429, 500, 408])
def test_a_busy_server_is_asked_again(tmp_path: Path, status: int) -> None:
    origin = Origin()
    origin.statuses = [status, status]
    assert stored(fetch(tmp_path, origin)) == BODY


@pytest.mark.parametrize("status", [404, 410, 401, 403])
def test_a_refusal_is_not_repeated(tmp_path: Path, status: int) -> None:
    origin = Origin()
    origin.statuses = [status] * 10
    with pytest.raises(ServiceError) as refused:
        fetch(tmp_path, origin)
    assert refused.value.status == status
    assert len(origin.asked) == 1


def test_a_line_that_brings_something_each_time_is_not_given_up(tmp_path: Path) -> None:
    origin = Origin()
    origin.break_after = [100_000] * 9
    assert stored(fetch(tmp_path, origin)) == BODY
    assert len(origin.asked) == 10


def test_a_build_that_goes_away_in_mid_resume_is_said_and_what_came_is_kept(tmp_path: Path) -> None:
    origin = Origin()
    origin.break_after = [100_000]
    first = fetch_once_then(origin, 404)
    with pytest.raises(ServiceError, match="404") as refused:
        fetch(tmp_path, first)
    assert refused.value.status == 404
    assert (tmp_path / "partial" / NAME).stat().st_size == 100_000


def fetch_once_then(origin: Origin, status: int) -> Answer:
    def answer(request: httpx.Request) -> httpx.Response:
        if origin.asked:
            origin.statuses = [status]
        return origin(request)

    return answer


@pytest.mark.parametrize("part", ["bytes 0-99/1024000", "bytes 100001-1023999/1024000", ""])
def test_another_part_than_was_asked_for_is_not_sewn_on(tmp_path: Path, part: str) -> None:
    asked = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request.headers.get("range", "all"))
        if len(asked) == 1:
            headers = {"Content-Range": part} if part else {}
            return httpx.Response(206, headers=headers, stream=Stream(BODY[100_000:], None))
        return httpx.Response(200, stream=Stream(BODY, None))

    (tmp_path / "partial").mkdir()
    (tmp_path / "partial" / NAME).write_bytes(BODY[:100_000])
    assert stored(fetch(tmp_path, answer)) == BODY
    assert asked == ["bytes=100000-", "all"]


def test_what_a_server_packs_is_not_unpacked(tmp_path: Path) -> None:
    bomb = gzip.compress(bytes(50_000_000))
    headers = {"Content-Encoding": "gzip"}
    with pytest.raises(ServiceError, match="sends gzip"):
        fetch(tmp_path, lambda _: httpx.Response(200, headers=headers, stream=Stream(bomb, None)))


def test_what_the_server_asks_for_is_waited_out(tmp_path: Path) -> None:
    waits: list[float] = []
    busy = iter([("7", 429), ("0", 503)])

    def answer(_: httpx.Request) -> httpx.Response:
        for text, status in busy:
            return httpx.Response(status, headers={"Retry-After": text})
        return httpx.Response(200, stream=Stream(BODY, None))

    async def sleep(seconds: float) -> None:
        waits.append(seconds)

    assert stored(fetch(tmp_path, answer, sleep=sleep)) == BODY
    assert 7 <= waits[0] <= 7.7
    assert waits[1] < 1


def test_a_long_pause_is_left_to_the_updater(tmp_path: Path) -> None:
    with pytest.raises(ServiceError) as busy:
        fetch(tmp_path, lambda _: httpx.Response(503, headers={"Retry-After": "600"}))
    assert busy.value.retry_after == 600


def test_a_limit_on_bandwidth_holds_over_the_whole_download(tmp_path: Path) -> None:
    now = 100.0

    async def sleep(seconds: float) -> None:
        nonlocal now
        now += seconds

    origin = Origin()
    origin.break_after = [300_000]
    fetch(tmp_path, origin, sleep=sleep, clock=lambda: now, bytes_per_second=50_000.0)
    # A second's worth comes at once; what is owed after the last byte is waited out too.
    assert now - 100 == pytest.approx(len(BODY) / 50_000 - 1, abs=0.01)


def test_patience_ends(tmp_path: Path) -> None:
    origin = Origin()
    origin.statuses = [503] * 100
    with pytest.raises(ServiceError, match="503"):
        fetch(tmp_path, origin)
    assert len(origin.asked) == 6


def test_a_range_beyond_the_end_begins_anew(tmp_path: Path) -> None:
    answers: Iterator[httpx.Response] = iter(
        [httpx.Response(416), httpx.Response(200, stream=Stream(BODY, None))]
    )
    (tmp_path / "partial").mkdir()
    (tmp_path / "partial" / NAME).write_bytes(BODY[:10])
    assert stored(fetch(tmp_path, lambda _: next(answers))) == BODY


def test_a_full_disk_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = Path.open

    def opened(self: Path, *arguments: Any, **options: Any) -> Any:
        if self.name == NAME and "b" in str(arguments):
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(self, *arguments, **options)

    monkeypatch.setattr(Path, "open", opened)
    with pytest.raises(StorageError, match="disk is full"):
        fetch(tmp_path, Origin())


def test_a_server_that_is_away_for_months_breaks_nothing() -> None:
    assert 0 <= backoff_seconds(5000) <= 60
