"""The files of a bundle: whatever lies on a stick, nothing but a bundle's own is ever read."""

from __future__ import annotations

import gzip
import io
import os
import shutil
import tarfile
from pathlib import Path
from typing import Any

import httpx
import pytest

from kedge_agent.bundles.files import open_bundle, read_table
from kedge_agent.bundles.transport import ADDRESS, BundleTransport, member_of
from kedge_shared.bundle import is_member
from kedge_shared.errors import InputError
from kedge_shared.ids import sha256_hex
from tests.agent.test_bundles import make, unpacked
from tests.sim.world import World


def tar_of(path: Path, *members: tuple[tarfile.TarInfo, bytes]) -> Path:
    with tarfile.open(path, "w", format=tarfile.GNU_FORMAT) as archive:
        for info, data in members:
            info.size = len(data) if data else info.size
            archive.addfile(info, io.BytesIO(data) if data else None)
    return path


def entry(name: str, kind: bytes = tarfile.REGTYPE, link: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, link
    return info


A = "artifacts/" + "a" * 64


@pytest.mark.parametrize(
    ("members", "said"),
    [
        ([(entry("../etc/passwd"), b"x")], "which no bundle does"),
        ([(entry("/etc/passwd"), b"x")], "which no bundle does"),
        ([(entry("artifacts/../bundle.json"), b"x")], "which no bundle does"),
        ([(entry("artifacts/" + "A" * 64), b"x")], "which no bundle does"),
        ([(entry("metadata/.json"), b"x")], "which no bundle does"),
        ([(entry(A), b"x"), (entry(A), b"y")], "twice"),
        ([(entry(A, tarfile.SYMTYPE, "/etc/shadow"), b"")], "neither a file nor a folder"),
        ([(entry(A, tarfile.LNKTYPE, "bundle.json"), b"")], "neither a file nor a folder"),
        ([(entry(A, tarfile.CHRTYPE), b"")], "neither a file nor a folder"),
        ([(entry(A, tarfile.FIFOTYPE), b"")], "neither a file nor a folder"),
        ([(entry(A, tarfile.XHDTYPE), b"30 path=artifacts/x\n" * 9)], "neither a file nor"),
        ([(entry("metadata/" + "n" * 200), b"x")], "neither a file nor a folder"),
    ],
)
def test_what_no_bundle_holds(tmp_path: Path, members: Any, said: str) -> None:
    with pytest.raises(InputError, match=said):
        open_bundle(tar_of(tmp_path / "stick", *members))


def test_bombs(tmp_path: Path) -> None:
    packed = tmp_path / "packed"
    packed.write_bytes(gzip.compress(bytes(20_000_000)))
    with pytest.raises(InputError, match="no bundle"):
        open_bundle(packed)
    many = tar_of(tmp_path / "many", *[(entry(f"metadata/{n}.json"), b"x") for n in range(4097)])
    with pytest.raises(InputError, match="more than 4096 files"):
        open_bundle(many)
    claims = entry(A)
    claims.size = 2**40
    header = claims.tobuf(tarfile.GNU_FORMAT)
    (tmp_path / "claims").write_bytes(header + bytes(1024))
    with pytest.raises(InputError, match="unexpected end of data"):
        open_bundle(tmp_path / "claims")
    (tmp_path / "empty").write_bytes(b"")
    with pytest.raises(InputError):
        open_bundle(tmp_path / "empty")
    with pytest.raises(InputError, match="cannot be read"):
        open_bundle(tmp_path / "none")


def test_a_folder_gives_nothing_but_regular_files(tmp_path: Path) -> None:
    folder = tmp_path / "stick"
    (folder / "artifacts").mkdir(parents=True)
    secret = tmp_path / "secret"
    secret.write_text("s")
    (folder / "artifacts" / ("a" * 64)).symlink_to(secret)
    os.mkfifo(folder / "artifacts" / ("b" * 64))
    (folder / "artifacts" / ("c" * 64)).mkdir()
    files = open_bundle(folder)
    for name in (*(f"artifacts/{each * 64}" for each in "abcd"), "../secret", "/etc/passwd"):
        assert files.open(name) is None
    shutil.rmtree(folder / "artifacts")
    (folder / "artifacts").symlink_to("/")
    with pytest.raises(InputError, match="is a link"):
        open_bundle(folder)


def test_members_are_read_as_they_lie(running: World) -> None:
    running.publish("1.0", 10)
    stick = make(running, "1.0")
    files, folder = open_bundle(stick), unpacked(stick)
    assert read_table(files).release == "1.0"
    for path in folder.rglob("*"):
        if path.is_file():
            name = str(path.relative_to(folder))
            assert is_member(name)
            found = files.open(name)
            assert found is not None
            with found[0] as file:
                assert file.read() == path.read_bytes()
                file.seek(3)
                assert file.read(5) == path.read_bytes()[3:8]


@pytest.mark.parametrize(
    ("path", "member"),
    [
        ("/tuf/metadata/1.root.json", "metadata/1.root.json"),
        (f"/tuf/targets/models/m/{'a' * 64}.policy.json", A),
        (f"/tuf/targets/{'a' * 64}.director.json", A),
        (f"/api/v1/artifacts/{'a' * 64}", A),
        ("/tuf/metadata/../bundle.json", ""),
        ("/tuf/targets/models/m/policy.json", ""),
        ("/api/v1/device/poll", ""),
    ],
)
def test_paths(path: str, member: str) -> None:
    assert member_of(path) == member


def test_ranges(running: World) -> None:
    running.publish("1.0", 10)
    files = open_bundle(make(running, "1.0"))
    engine = running.home / "builds/1.0/x86-onnxruntime/model.onnx"
    body = engine.read_bytes()
    url = f"{ADDRESS}/api/v1/artifacts/{sha256_hex(body)}"
    with httpx.Client(transport=BundleTransport(files)) as http:
        part = http.get(url, headers={"Range": "bytes=1000-"})
        assert (part.status_code, part.content) == (206, body[1000:])
        assert part.headers["Content-Range"] == f"bytes 1000-{len(body) - 1}/{len(body)}"
        assert http.get(url).content == body
        assert http.get(url, headers={"Range": f"bytes={len(body) + 1}-"}).status_code == 416
        assert http.get(f"{ADDRESS}/api/v1/artifacts/{'0' * 64}").status_code == 404
        assert http.post(url).status_code == 404
