"""The artifact folder: only whole, hashed bytes get a name, and ranges are served as asked."""

from __future__ import annotations

import errno
import hashlib
import io
from pathlib import Path
from typing import Any

import httpx
import pytest

from kedge_server.artifacts.store import ArtifactStore
from tests.sim.world import World, world

BODY = bytes(range(256)) * 4000
NAME = hashlib.sha256(BODY).hexdigest()


def put(running: World, body: bytes, name: str | None = None) -> httpx.Response:
    digest = name or hashlib.sha256(body).hexdigest()
    return running.operator.http.put(f"/api/v1/artifacts/{digest}", content=body)


def stored(running: World) -> list[Path]:
    root = running.home / "server" / "artifacts"
    return [each for each in root.rglob("*") if each.is_file()]


def test_an_upload_comes_back_whole_and_in_parts(running: World) -> None:
    assert put(running, BODY).status_code == 201
    assert put(running, BODY).status_code == 200
    device = running.enrol("cam-1")
    url = f"/api/v1/artifacts/{NAME}"
    whole = device.http.get(url)
    assert whole.content == BODY
    assert whole.headers["etag"] == f'"{NAME}"'
    rest = device.http.get(url, headers={"Range": "bytes=1000-", "If-Range": f'"{NAME}"'})
    assert (rest.status_code, rest.content) == (206, BODY[1000:])
    other = device.http.get(url, headers={"Range": "bytes=1000-", "If-Range": '"other"'})
    assert (other.status_code, other.content) == (200, BODY)
    beyond = device.http.get(url, headers={"Range": f"bytes={len(BODY)}-"})
    assert beyond.status_code == 416
    head = device.http.head(url)
    assert (head.status_code, head.headers["content-length"]) == (200, str(len(BODY)))


def test_wrong_bytes_get_no_name(running: World) -> None:
    before = stored(running)
    answer = put(running, BODY[:-1], NAME)
    assert answer.status_code == 400
    assert "not those of the name" in answer.json()["error"]
    assert running.operator.http.head(f"/api/v1/artifacts/{NAME}").status_code == 404
    assert stored(running) == before


def test_too_large_is_refused_while_it_streams(tmp_path: Path) -> None:
    with world(tmp_path, artifact_limit_mb=1) as running:
        before = stored(running)
        answer = put(running, b"x" * (2**20 + 1))
        assert answer.status_code == 413
        assert stored(running) == before


def test_a_full_disk_is_said_and_leaves_nothing(
    running: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = Path.open

    class Full(io.BytesIO):
        def write(self, *_: Any) -> int:
            raise OSError(errno.ENOSPC, "No space left on device")

    def opened(self: Path, mode: str = "r", *rest: Any, **options: Any) -> Any:
        if "incoming" in self.parts and "w" in mode:
            return Full()
        return real(self, mode, *rest, **options)

    monkeypatch.setattr(Path, "open", opened)
    answer = put(running, BODY)
    monkeypatch.undo()
    assert answer.status_code == 507
    assert answer.json()["error"] == "the server's disk is full"
    assert put(running, BODY).status_code == 201


@pytest.mark.parametrize("name", ["..%2f..%2fkedge.db", "A" * 64, "a" * 63, "incoming"])
def test_names_that_are_no_hash_reach_no_file(running: World, name: str) -> None:
    answer = running.operator.http.get(f"/api/v1/artifacts/{name}")
    assert answer.status_code in {400, 404}


def test_uploads_need_the_operator(running: World) -> None:
    device = running.enrol("cam-1")
    assert device.http.put(f"/api/v1/artifacts/{NAME}", content=BODY).status_code == 401
    assert httpx.get(f"{running.url}/api/v1/artifacts/{NAME}").status_code == 401


def test_what_a_crash_left_half_written_is_cleared_at_the_start(tmp_path: Path) -> None:
    (tmp_path / "incoming").mkdir()
    (tmp_path / "incoming" / "half").write_bytes(b"x")
    ArtifactStore(tmp_path, 10)
    assert list((tmp_path / "incoming").iterdir()) == []
