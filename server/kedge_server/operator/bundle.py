"""Makes a bundle: a release on a stick, for boards without network."""

from __future__ import annotations

import hashlib
import io
import json
import os
import tarfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from kedge_shared import api, signing, wire
from kedge_shared.bundle import TABLE, Bundle, BundledBuild
from kedge_shared.client import Client
from kedge_shared.errors import InputError, ServiceError, StorageError, TrustError
from kedge_shared.ids import sha256_hex
from kedge_shared.manifest import MANIFEST_LIMIT_BYTES, read_manifest
from kedge_shared.policy import POLICY_LIMIT_BYTES, policy_path, read_policy
from kedge_shared.protocol import Assignment, ManifestRef
from kedge_shared.trust import DIRECTOR_LIMIT_BYTES, DIRECTOR_PATH

#: Bytes done, bytes in all, what.
Progress: TypeAlias = Callable[[int, int, str], None]
_METADATA_LIMIT_BYTES = 5_000_000


@dataclass(frozen=True)
class Listed:
    """A target as the metadata lists it."""

    sha256: str
    length: int


@dataclass(frozen=True)
class Made:
    """What was made.

    Attributes:
        path: Of the bundle.
        size_bytes: Of the bundle.
        table: Its table of contents.
        expires: When its timestamp expires, as the metadata says it.
    """

    path: str
    size_bytes: int
    table: Bundle
    expires: str


def make(
    client: Client,
    release: api.ReleaseInfo,
    device_classes: Sequence[str],
    devices: Sequence[str],
    out: Path,
    progress: Progress = lambda *_: None,
) -> Made:
    """Writes a bundle; it has its name only once it is whole.

    Args:
        client: Of the operator.
        release: To put on it.
        device_classes: Builds to put on it; empty is all.
        devices: Boards whose assignment goes with it.
        out: File to write.
        progress: Called with bytes done, bytes in all and what is fetched.

    Raises:
        InputError: No such build, no assignment of this release, or ``out`` is there already.
        ServiceError: The server does not answer, or sends other bytes than it lists.
        StorageError: ``out`` cannot be written.
    """
    if out.exists():
        raise InputError(f"{out} is there already", "name another file")
    metadata = _metadata(client)
    targets = _targets(metadata)
    builds = _builds(release, device_classes, targets)
    envelopes = {each: _assignment(client, each, builds) for each in devices}
    table = Bundle(
        schema=1, model=release.model, release=release.release, made=int(time.time()),
        builds=builds, devices=tuple(sorted(envelopes)),
    )  # fmt: skip
    scratch = out.with_name(f".{out.name}.part")
    try:
        with scratch.open("xb") as file, tarfile.open(
            fileobj=file, mode="w", format=tarfile.USTAR_FORMAT
        ) as archive:  # fmt: skip
            _add(archive, TABLE, wire.encode_pretty(table))
            for name, data in metadata.items():
                _add(archive, f"metadata/{name}", data)
            for device, envelope in envelopes.items():
                _add(archive, f"assignments/{device}.json", json.dumps(envelope).encode())
            wanted = _artifacts(client, builds, targets, release.model)
            watched = _Watched(progress, sum(wanted.values()))
            for sha256, length in wanted.items():
                _stream(archive, sha256, length, watched.chunks(client, sha256))
        _settle(scratch, out)
    except OSError as error:
        raise StorageError(f"{out} cannot be written: {error.strerror}") from None
    finally:
        scratch.unlink(missing_ok=True)
    return Made(str(out), out.stat().st_size, table, _signed(metadata["timestamp.json"])["expires"])


def _metadata(client: Client) -> dict[str, bytes]:
    """Fetches everything that a client of the repository will ask for."""

    def fetch(name: str) -> bytes:
        return client.read(f"/tuf/metadata/{name}", _METADATA_LIMIT_BYTES)

    found = {
        name: fetch(name)
        for version in range(1, client.repository().root + 1)
        for name in [f"{version}.root.json"]
    }
    found["timestamp.json"] = fetch("timestamp.json")
    version = _signed(found["timestamp.json"])["meta"]["snapshot.json"]["version"]
    snapshot = found[f"{version}.snapshot.json"] = fetch(f"{version}.snapshot.json")
    for role, meta in _signed(snapshot)["meta"].items():
        name = f"{meta['version']}.{role}"
        found[name] = fetch(name)
    return found


def _signed(metadata: bytes) -> Any:
    return json.loads(metadata)["signed"]


def _targets(metadata: dict[str, bytes]) -> dict[str, Listed]:
    """Returns path → target over all roles; whether they are signed is the board's to check."""
    found = {}
    for data in metadata.values():
        for path, each in _signed(data).get("targets", {}).items():
            found[path] = Listed(each["hashes"]["sha256"], each["length"])
    return found


def _builds(
    release: api.ReleaseInfo, device_classes: Sequence[str], targets: dict[str, Listed]
) -> tuple[BundledBuild, ...]:
    known = {each.device_class: each for each in release.builds}
    missing = sorted(set(device_classes) - set(known))
    if missing:
        raise InputError(
            f"release {release.release} has no build for {', '.join(missing)}",
            f"it has {', '.join(sorted(known))}",
        )
    builds = []
    for name in sorted(device_classes or known):
        path = known[name].manifest_path
        if path not in targets:
            raise InputError(f"{path} is not among the signed targets any more")
        ref = ManifestRef(path=path, sha256=targets[path].sha256, length=targets[path].length)
        builds.append(BundledBuild(device_class=name, manifest=ref))
    return tuple(builds)


def _assignment(client: Client, device: str, builds: Iterable[BundledBuild]) -> dict[str, Any]:
    envelope = client.device_assignment(device).assignment
    try:
        told = signing.peek(envelope, Assignment) if envelope else None
    except TrustError as error:
        raise ServiceError(f"the server's assignment cannot be read: {error}") from None
    if envelope is None or told is None or told.manifest not in {each.manifest for each in builds}:
        raise InputError(
            f"{device} is not assigned a build of this bundle",
            "roll the release out to it first: `kedge rollout create`",
        )
    return envelope


def _artifacts(
    client: Client, builds: Iterable[BundledBuild], targets: dict[str, Listed], model: str
) -> dict[str, int]:
    """Returns hash → length of every file that a board will ask for."""
    director, policy_at = targets[DIRECTOR_PATH], targets[policy_path(model)]
    if director.length > DIRECTOR_LIMIT_BYTES:
        raise ServiceError("the director's key is too long")
    found = {director.sha256: director.length, policy_at.sha256: policy_at.length}
    policy = read_policy(_small(client, policy_at, POLICY_LIMIT_BYTES))
    found |= {each.sha256: each.length for each in policy.golden}
    for build in builds:
        listed = Listed(build.manifest.sha256, build.manifest.length)
        manifest = read_manifest(_small(client, listed, MANIFEST_LIMIT_BYTES))
        found[listed.sha256] = listed.length
        found |= {each.sha256: each.length for each in manifest.files}
    return found


def _small(client: Client, listed: Listed, limit_bytes: int) -> bytes:
    data = client.read(f"/api/v1/artifacts/{listed.sha256}", limit_bytes)
    if sha256_hex(data) != listed.sha256:
        raise ServiceError(f"the server sends other bytes than it lists for {listed.sha256[:12]}")
    return data


def _add(archive: tarfile.TarFile, name: str, data: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(data)
    archive.addfile(info, io.BytesIO(data))


def _stream(archive: tarfile.TarFile, sha256: str, length: int, chunks: Iterator[bytes]) -> None:
    info = tarfile.TarInfo(f"artifacts/{sha256}")
    info.size = length
    source = _Hashed(chunks)
    archive.addfile(info, source)
    if source.sha256 != sha256:
        raise ServiceError(f"the server sends other bytes than it lists for {sha256[:12]}")


class _Watched:
    """Counts what is fetched."""

    def __init__(self, progress: Progress, total: int) -> None:
        self._progress, self._total, self._done = progress, total, 0

    def chunks(self, client: Client, sha256: str) -> Iterator[bytes]:
        for chunk in client.chunks(sha256):
            self._done += len(chunk)
            self._progress(self._done, self._total, sha256[:12])
            yield chunk


class _Hashed(io.RawIOBase):
    """What a server sends, read like a file and hashed on the way."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        super().__init__()
        self._chunks, self._rest, self._digest = chunks, b"", hashlib.sha256()

    @property
    def sha256(self) -> str:
        """Of all that was read, and of all that came besides."""
        self._digest.update(self._rest)
        for chunk in self._chunks:
            self._digest.update(chunk)
        return self._digest.hexdigest()

    def read(self, count: int = -1, /) -> bytes:
        """Returns exactly ``count`` bytes, fewer only at the end."""
        while len(self._rest) < count:
            chunk = next(self._chunks, b"")
            if not chunk:
                break
            self._rest += chunk
        data, self._rest = self._rest[:count], self._rest[count:]
        self._digest.update(data)
        return data


def _settle(scratch: Path, out: Path) -> None:
    with scratch.open("rb") as file:
        os.fsync(file.fileno())
    scratch.rename(out)
