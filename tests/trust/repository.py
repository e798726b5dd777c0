"""A TUF repository in memory that answers as a server would, and can be made to lie."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from typing import Any

from securesystemslib.signer import CryptoSigner
from tuf.api.exceptions import DownloadError, DownloadHTTPError
from tuf.api.metadata import (
    DelegatedRole,
    Delegations,
    Metadata,
    MetaFile,
    Root,
    Snapshot,
    TargetFile,
    Targets,
    Timestamp,
)
from tuf.ngclient import FetcherInterface

from kedge_shared import signing

URL = "https://repository/metadata/"
TARGETS_URL = "https://repository/targets/"
TOP = ("root", "targets", "snapshot", "timestamp")


def soon(days: float = 30) -> datetime:
    return datetime.now(timezone.utc).replace(microsecond=0) + timedelta(days=days)


@dataclass
class MemoryRepository(FetcherInterface):
    """A repository.

    Attributes:
        files: URL → bytes that are served.
        asked: URLs that were asked for, in order.
        down: Whether nothing answers.
    """

    files: dict[str, bytes] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    down: bool = False

    def __post_init__(self) -> None:
        self.signers = {role: signing.generate() for role in TOP}
        self.root = Root(expires=soon(365), consistent_snapshot=True)
        for role in TOP:
            self.root.add_key(self.signers[role].public_key, role)
        self.targets: dict[str, Targets] = {"targets": Targets(expires=soon())}
        self.role_signers: dict[str, list[CryptoSigner]] = {"targets": [self.signers["targets"]]}
        self.snapshot = Snapshot(expires=soon(), meta={})
        self.timestamp = Timestamp(expires=soon())
        self.publish_root(first=True)
        self.pinned = self.files[f"{URL}1.root.json"]
        self.publish("targets")

    def _fetch(self, url: str) -> Iterator[bytes]:
        self.asked.append(url)
        if self.down:
            raise DownloadError(f"{url}: down")
        if url not in self.files:
            raise DownloadHTTPError(f"{url}: 404", 404)
        yield self.files[url]

    @property
    def names(self) -> set[str]:
        return {url.removeprefix(URL) for url in self.files}

    def publish_root(
        self, *, first: bool = False, signers: Sequence[CryptoSigner] | None = None
    ) -> None:
        self.root.version += 0 if first else 1
        self.put(f"{self.root.version}.root", self.root, signers or [self.signers["root"]])

    def delegate(
        self, parent: str, name: str, paths: list[str], signer: CryptoSigner | None = None
    ) -> CryptoSigner:
        """Delegates ``paths`` to a role of one key; the role exists once it is published."""
        signer = signer or signing.generate()
        key, role = signer.public_key, DelegatedRole(name, [], 1, True, paths)
        known = self.targets[parent].delegations
        roles = {**(known.roles or {} if known else {}), name: role}
        self.targets[parent].delegations = Delegations(known.keys if known else {}, roles)
        self.targets[parent].add_key(key, name)
        self.targets.setdefault(name, Targets(expires=soon()))
        self.role_signers.setdefault(name, []).append(signer)
        return signer

    def add(self, role: str, path: str, data: bytes) -> None:
        self.targets[role].targets[path] = info = TargetFile.from_data(path, data, ["sha256"])
        folder, slash, name = path.rpartition("/")
        self.files[f"{TARGETS_URL}{folder}{slash}{info.hashes['sha256']}.{name}"] = data

    def publish(self, *roles: str) -> None:
        """Signs roles, snapshot and timestamp."""
        for role in roles:
            known = self.snapshot.meta.get(f"{role}.json")
            version = self.targets[role].version = known.version + 1 if known else 1
            self.put(f"{version}.{role}", self.targets[role], self.role_signers[role])
            self.snapshot.meta[f"{role}.json"] = MetaFile(version)
        self.snapshot.version += "timestamp.json" in self.names
        self.put(f"{self.snapshot.version}.snapshot", self.snapshot, [self.signers["snapshot"]])
        self.stamp()

    def stamp(self) -> None:
        self.timestamp.version += "timestamp.json" in self.names
        self.timestamp.snapshot_meta = MetaFile(self.snapshot.version)
        self.put("timestamp", self.timestamp, [self.signers["timestamp"]])

    def put(
        self, name: str, signed: Root | Targets | Snapshot | Timestamp,
        signers: Sequence[CryptoSigner],
    ) -> None:  # fmt: skip
        metadata: Metadata[Any] = Metadata(signed)
        for each in signers:
            metadata.sign(each, append=True)
        self.files[f"{URL}{name}.json"] = metadata.to_bytes()
