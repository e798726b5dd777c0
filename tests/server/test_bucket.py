"""Artifacts in S3-compatible storage: what holds for the folder holds there."""

from __future__ import annotations

import asyncio
import hashlib
import os
import socket
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

from kedge_server.artifacts.bucket import BucketStore
from kedge_server.artifacts.ranges import UnsatisfiableError, asked
from kedge_server.errors import BusyError, RequestError
from kedge_shared.errors import InputError
from tests.sim.s3 import Storage, missing, storage
from tests.sim.world import TOKEN, World, world

#: Over the size of one part, so that it is a multipart upload.
BODY = os.urandom(1024) * 1024 * 12
NAME = hashlib.sha256(BODY).hexdigest()


@pytest.fixture(scope="module")
def running_storage() -> Iterator[Storage]:
    if missing():
        pytest.skip(missing())
    with storage() as found:
        yield found


@pytest.fixture
def bucket(running_storage: Storage, monkeypatch: pytest.MonkeyPatch) -> Storage:
    for name, value in running_storage.variables.items():
        monkeypatch.setenv(name, value)
    return running_storage


@pytest.fixture
def running(bucket: Storage, tmp_path: Path) -> Iterator[World]:
    with world(tmp_path) as found:
        yield found


def put(running: World, body: bytes, name: str) -> httpx.Response:
    return running.operator.http.put(f"/api/v1/artifacts/{name}", content=body)


def test_an_upload_comes_back_whole_and_in_parts(running: World) -> None:
    assert put(running, BODY, NAME).status_code == 201
    assert put(running, BODY, NAME).status_code == 200
    device, url = running.enrol("cam-1"), f"/api/v1/artifacts/{NAME}"
    whole = device.http.get(url)
    assert whole.content == BODY
    assert whole.headers["etag"] == f'"{NAME}"'
    rest = device.http.get(url, headers={"Range": "bytes=1000-", "If-Range": f'"{NAME}"'})
    assert (rest.status_code, rest.content) == (206, BODY[1000:])
    assert rest.headers["content-range"] == f"bytes 1000-{len(BODY) - 1}/{len(BODY)}"
    other = device.http.get(url, headers={"Range": "bytes=1000-", "If-Range": '"other"'})
    assert (other.status_code, other.content) == (200, BODY)
    assert device.http.get(url, headers={"Range": f"bytes={len(BODY)}-"}).status_code == 416
    head = device.http.head(url)
    assert (head.status_code, head.headers["content-length"]) == (200, str(len(BODY)))


def test_nobody_gets_bytes_whom_the_server_does_not_know(running: World) -> None:
    put(running, BODY, NAME)
    assert httpx.get(f"{running.url}/api/v1/artifacts/{NAME}").status_code == 401


def test_wrong_bytes_leave_nothing(running: World, bucket: Storage) -> None:
    wrong = hashlib.sha256(b"something else").hexdigest()
    before = bucket.names()
    answer = put(running, BODY, wrong)
    assert answer.status_code == 400
    assert "not those of the name" in answer.json()["error"]
    assert running.operator.http.head(f"/api/v1/artifacts/{wrong}").status_code == 404
    assert bucket.names() == before


def test_an_upload_that_breaks_off_leaves_nothing(running: World, bucket: Storage) -> None:
    before, parts = bucket.names(), urlsplit(running.url)
    name = hashlib.sha256(b"never whole").hexdigest()
    with socket.create_connection((str(parts.hostname), int(parts.port or 0))) as line:
        line.sendall(
            f"PUT /api/v1/artifacts/{name} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\n"
            f"Content-Length: {len(BODY)}\r\n\r\n".encode()
            + BODY[: len(BODY) - 1]
        )
    for _ in range(50):
        if put(running, b"", name).status_code == 400 and bucket.names() == before:
            break
    assert bucket.names() == before


def test_a_release_is_published_and_installed_from_the_bucket(running: World) -> None:
    device = running.enrol("cam-1")
    running.publish("1.0", 10)
    running.roll_out("1.0")
    device.live()
    assert device.assignment is not None
    ref = device.assignment.manifest
    assert ref is not None
    folder, _, last = ref.path.rpartition("/")
    body = device.http.get(f"/tuf/targets/{folder}/{ref.sha256}.{last}")
    assert hashlib.sha256(body.content).hexdigest() == ref.sha256
    assert not (running.home / "server" / "artifacts").exists()


def test_a_storage_that_is_away_is_told_as_such(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if missing():
        pytest.skip(missing())
    with socket.create_server(("127.0.0.1", 0)) as nobody:
        address = f"http://127.0.0.1:{nobody.getsockname()[1]}"
    for name, value in Storage(address, None).variables.items():  # type: ignore[arg-type]
        monkeypatch.setenv(name, value)
    store = BucketStore("s3://kedge/artifacts", 10**9, retry_seconds=1)
    with pytest.raises(BusyError, match="storage cannot be used now"):
        store.has(NAME)

    async def body() -> AsyncIterator[bytes]:
        yield BODY

    with pytest.raises(BusyError, match="storage cannot be used now") as found:
        asyncio.run(store.receive(NAME, body()))
    assert found.value.seconds > 0


def test_a_name_that_is_no_hash_reaches_no_storage() -> None:
    if missing():
        pytest.skip(missing())
    with pytest.raises(RequestError, match="no SHA-256"):
        BucketStore("s3://kedge", 10).has("../other")


def test_an_address_that_is_no_bucket_is_refused() -> None:
    if missing():
        pytest.skip(missing())
    with pytest.raises(InputError, match="cannot be used"):
        BucketStore("s3:", 10)


@pytest.mark.parametrize(
    ("header", "found"),
    [
        ("", None), ("bytes=0-", (0, 100)), ("bytes=10-19", (10, 20)), ("bytes=90-500", (90, 100)),
        ("bytes=-10", (90, 100)), ("bytes=-500", (0, 100)), ("bytes=99-99", (99, 100)),
        ("bytes=0-1,5-6", None), ("lines=1-2", None), ("bytes=-", None), ("bytes=20-10", None),
    ],
)  # fmt: skip
def test_ranges(header: str, found: tuple[int, int] | None) -> None:
    assert asked(header, "", '"e"', 100) == found
    assert asked(header, '"e"', '"e"', 100) == found
    assert asked(header, '"other"', '"e"', 100) is None


@pytest.mark.parametrize("header", ["bytes=100-", "bytes=-0", "bytes=1000-2000"])
def test_ranges_beyond_the_end(header: str) -> None:
    with pytest.raises(UnsatisfiableError):
        asked(header, "", '"e"', 100)
