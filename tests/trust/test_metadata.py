"""What a board trusts of the image repository: across look-ups, power cuts and rotten disks."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
from tuf.api.exceptions import DownloadError, ExpiredMetadataError, RepositoryError
from tuf.api.metadata import Metadata, Targets

from kedge_agent import disk, tuf_metadata
from kedge_agent.tuf_metadata import TrustedMetadata
from kedge_shared import signing
from kedge_shared.errors import TrustError
from kedge_shared.ids import sha256_hex
from tests.trust.repository import TARGETS_URL, URL, MemoryRepository, soon

ROTTEN: dict[str, Callable[[bytes], bytes]] = {
    "zeroed": lambda data: bytes(len(data)),
    "cut short": lambda data: data[: len(data) // 2],
    "empty": lambda data: b"",
    "one bit": lambda data: data[:-40] + bytes([data[-40] ^ 1]) + data[-39:],
    "deep": lambda data: b"[" * 100_000,
}


@pytest.fixture
def repository() -> MemoryRepository:
    found = MemoryRepository()
    found.delegate("targets", "shapes", ["models/shapes/*"])
    found.add("shapes", "models/shapes/a", b"a's bytes")
    found.publish("shapes", "targets")
    return found


def client(repository: MemoryRepository, folder: Path) -> TrustedMetadata:
    return TrustedMetadata(folder / "metadata", URL, repository.pinned, repository)


def now(ahead_seconds: float = 0) -> datetime:
    return datetime.now(timezone.utc) + timedelta(seconds=ahead_seconds)


def rotate_timestamp_key(repository: MemoryRepository) -> None:
    """Root 2: another timestamp key."""
    old = repository.signers["timestamp"]
    repository.signers["timestamp"] = signing.generate()
    repository.root.revoke_key(old.public_key.keyid, "timestamp")
    repository.root.add_key(repository.signers["timestamp"].public_key, "timestamp")
    repository.publish_root()
    repository.stamp()


def test_a_target_of_a_delegated_role_is_found_and_fetched(
    repository: MemoryRepository, tmp_path: Path
) -> None:
    trusted = client(repository, tmp_path)
    trusted.refresh(now())
    info = trusted.find("models/shapes/a")
    assert info is not None
    assert trusted.download(info, TARGETS_URL) == b"a's bytes"
    assert trusted.find("models/shapes/b") is None
    assert repository.asked.count(f"{URL}timestamp.json") == 1, "one moment, one answer"


def test_a_role_found_along_one_path_has_no_authority_on_another(
    repository: MemoryRepository, tmp_path: Path
) -> None:
    """What python-tuf 7.0.0 lets through: ``release`` is A's, B asked for another key."""
    repository.delegate("targets", "a", ["a/*"])
    repository.delegate("targets", "b", ["b/*"])
    key_of_a = repository.delegate("a", "release", ["a/*"])
    repository.delegate("b", "release", ["b/*"])
    repository.role_signers["release"] = [key_of_a]
    repository.add("release", "a/x", b"trusted")
    repository.add("release", "b/x", b"of a, under the name of b")
    repository.publish("release", "a", "b", "targets")
    trusted = client(repository, tmp_path)
    trusted.refresh(now())
    assert trusted.find("a/x") is not None
    with pytest.raises(RepositoryError, match="signed by 0/1"):
        trusted.find("b/x")
    assert trusted.find("a/x") is not None


def test_a_replaced_role_is_not_believed_of_its_first_delegator(
    repository: MemoryRepository, tmp_path: Path
) -> None:
    """What python-tuf 7.0.1 lets through: B's bytes replace A's and speak for A from then on."""
    repository.delegate("targets", "a", ["a/*"])
    repository.delegate("targets", "b", ["b/*"])
    key_of_a = repository.delegate("a", "release", ["a/*"])
    key_of_b = repository.delegate("b", "release", ["b/*"])
    repository.role_signers["release"] = [key_of_a]
    repository.add("release", "a/x", b"trusted")
    repository.publish("release", "a", "b", "targets")
    trusted = client(repository, tmp_path)
    trusted.refresh(now())
    assert trusted.find("a/x") is not None
    of_b = Targets(version=repository.targets["release"].version, expires=soon())
    repository.targets["release"] = of_b
    repository.add("release", "b/x", b"b's own")
    repository.add("release", "a/x", b"b's, under the name of a")
    repository.put(f"{of_b.version}.release", of_b, [key_of_b])
    with pytest.raises(RepositoryError, match="signed by 0/1"):
        trusted.find("b/x")
    info = trusted.find("a/x")
    assert info is not None
    assert info.hashes["sha256"] == sha256_hex(b"trusted")


@pytest.mark.parametrize("rot", ROTTEN.values(), ids=list(ROTTEN))
@pytest.mark.parametrize(
    "name", ["root.json", "timestamp.json", "snapshot.json", "targets.json", "shapes.json",
             "root_history/1.root.json", "root_history/2.root.json"],
)  # fmt: skip
def test_rotten_metadata_is_fetched_again(
    repository: MemoryRepository, tmp_path: Path, name: str, rot: Callable[[bytes], bytes]
) -> None:
    rotate_timestamp_key(repository)
    trusted = client(repository, tmp_path)
    trusted.refresh(now())
    trusted.find("models/shapes/a")
    place = tmp_path / "metadata" / name
    good = place.read_bytes()
    place.write_bytes(rot(good))
    again = client(repository, tmp_path)
    again.refresh(now())
    assert again.find("models/shapes/a") is not None
    assert Metadata.from_bytes(place.read_bytes()).signed == Metadata.from_bytes(good).signed


def test_a_root_that_was_trusted_binds_also_when_its_file_is_rotten(
    repository: MemoryRepository, tmp_path: Path
) -> None:
    """Whoever stole the old timestamp key withholds the root that took it away."""
    repository.publish()
    stolen = repository.files[f"{URL}timestamp.json"]
    rotate_timestamp_key(repository)
    client(repository, tmp_path).refresh(now())
    fresh = repository.files[f"{URL}timestamp.json"]
    place = tmp_path / "metadata" / "root_history" / "2.root.json"
    place.write_bytes(b"")
    withheld = repository.files.pop(f"{URL}2.root.json")
    repository.files[f"{URL}timestamp.json"] = stolen
    kept = (tmp_path / "metadata" / "timestamp.json").read_bytes()
    with pytest.raises(TrustError, match="withholds roots after 1"):
        client(repository, tmp_path).refresh(now())
    assert (tmp_path / "metadata" / "timestamp.json").read_bytes() == kept
    (tmp_path / "metadata" / "snapshot.json").unlink()
    snapshot = repository.files.pop(f"{URL}{repository.snapshot.version}.snapshot.json")
    with pytest.raises(DownloadError):
        client(repository, tmp_path).refresh(now())
    assert (tmp_path / "metadata" / "timestamp.json").read_bytes() == kept, "nor when it breaks off"
    repository.files[f"{URL}{repository.snapshot.version}.snapshot.json"] = snapshot
    repository.files |= {f"{URL}2.root.json": withheld, f"{URL}timestamp.json": fresh}
    client(repository, tmp_path).refresh(now())


def test_nothing_is_relied_upon_before_it_would_survive_a_power_cut(
    repository: MemoryRepository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every file goes through the one function that syncs file and folder, roots first."""
    written: list[Path] = []

    def write_whole(path: Path, data: bytes) -> None:
        written.append(path)
        disk.write_whole(path, data)

    monkeypatch.setattr(tuf_metadata, "write_whole", write_whole)
    trusted = client(repository, tmp_path)
    trusted.refresh(now())
    trusted.find("models/shapes/a")
    folder = tmp_path / "metadata"
    files = {each for each in folder.rglob("*") if each.is_file()}
    assert files == set(written)
    assert written[0] == folder / "root_history" / "1.root.json"
    written.clear()
    trusted.refresh(now())
    assert not written, "nothing new, nothing written"


def test_what_was_verified_is_kept_when_the_rest_fails(
    repository: MemoryRepository, tmp_path: Path
) -> None:
    client(repository, tmp_path).refresh(now())
    old = repository.files[f"{URL}timestamp.json"]
    repository.publish("targets")
    del repository.files[f"{URL}{repository.snapshot.version}.snapshot.json"]
    with pytest.raises(DownloadError):
        client(repository, tmp_path).refresh(now())
    repository.files[f"{URL}timestamp.json"] = old
    with pytest.raises(RepositoryError, match="must be >="):
        client(repository, tmp_path).refresh(now())


@pytest.mark.parametrize("role", ["timestamp", "snapshot", "targets"])
def test_a_board_whose_clock_stands_in_the_past_knows_better(
    repository: MemoryRepository, tmp_path: Path, role: str
) -> None:
    signed = repository.targets["targets"] if role == "targets" else getattr(repository, role)
    signed.expires = soon(3)
    repository.publish("targets")
    client(repository, tmp_path).refresh(now(2 * 86400))
    with pytest.raises(ExpiredMetadataError, match=role):
        client(repository, tmp_path).refresh(now(4 * 86400))


def test_a_grace_is_for_what_the_server_signs_and_never_for_a_team(
    repository: MemoryRepository, tmp_path: Path
) -> None:
    repository.targets["shapes"].expires = soon(3)
    repository.publish("shapes")
    trusted = client(repository, tmp_path)
    trusted.refresh(now(2 * 86400), timedelta(days=9))
    assert trusted.find("models/shapes/a") is not None
    trusted.refresh(now(4 * 86400), timedelta(days=9))
    with pytest.raises(ExpiredMetadataError, match="targets expired"):
        trusted.find("models/shapes/a")


@pytest.mark.parametrize(
    ("name", "limit"),
    [("2.root", 512_000), ("timestamp", 16_384), ("2.snapshot", 2_000_000),
     ("2.targets", 5_000_000)],
)  # fmt: skip
def test_endless_metadata_is_not_read_to_its_end(
    repository: MemoryRepository, tmp_path: Path, name: str, limit: int
) -> None:
    served = 0

    def endless(url: str) -> object:
        nonlocal served
        if url != f"{URL}{name}.json":
            yield from MemoryRepository._fetch(repository, url)
            return
        while True:
            served += 1000
            yield b" " * 1000

    repository._fetch = endless  # type: ignore[method-assign, assignment]
    with pytest.raises(DownloadError, match="maximum allowed"):
        client(repository, tmp_path).refresh(now())
    assert served <= limit + 1000
