"""Keeps TUF metadata: takes targets that the builders signed, signs snapshot and timestamp."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta, timezone
from pathlib import Path

from sqlmodel import Session, col, select
from tuf.api.exceptions import RepositoryError
from tuf.api.metadata import (
    Metadata,
    MetaFile,
    Root,
    Snapshot,
    TargetFile,
    Targets,
    Timestamp,
)

from kedge_server.artifacts.store import ArtifactStore
from kedge_server.errors import NotFoundError, RequestError, StaleError
from kedge_server.repository.signers import OnlineKeys
from kedge_server.repository.tables import MetadataRow
from kedge_shared.api import RepositoryState
from kedge_shared.errors import InputError
from kedge_shared.trust import DIRECTOR_PATH

TARGETS_LIMIT_BYTES = 5_000_000
ROLES = ("root", "targets", "snapshot", "timestamp")


class ImageRepository:
    """The repository of one server.

    Args:
        keys: Online keys.
        store: Where target files lie.
        timestamp_life: How long a timestamp holds.
        snapshot_life: How long a snapshot holds.
    """

    def __init__(
        self, keys: OnlineKeys, store: ArtifactStore, timestamp_life: timedelta,
        snapshot_life: timedelta,
    ) -> None:  # fmt: skip
        self._keys, self._store = keys, store
        self._timestamp_life, self._snapshot_life = timestamp_life, snapshot_life
        self.timestamp_version = 0

    def open(self, session: Session, first: Path) -> None:
        """Brings in the first metadata, or checks that what is stored belongs to these keys.

        Raises:
            InputError: The first metadata is missing or does not hold together, or the database
                is another repository's.
        """
        try:
            root = (first / "1.root.json").read_bytes()
            targets = (first / "1.targets.json").read_bytes()
            director = (first / DIRECTOR_PATH).read_bytes()
        except OSError as error:
            raise InputError(
                f"{error.filename} cannot be read: {error.strerror}",
                "name the folder that `kedge keys init` wrote",
            ) from None
        stored = session.get(MetadataRow, ("root", 1))
        if stored is None:
            self._store.add(director)
            self._import(session, root, targets)
        elif stored.body != root:
            raise InputError(f"{first} is of another repository than the database")
        else:
            # A database restored from a backup holds versions that boards have gone beyond.
            self._sign_snapshot(session, self._newest(session, "targets"))
        self.timestamp_version = self._newest(session, "timestamp")

    def state(self, session: Session) -> RepositoryState:
        """Returns the newest version of every role."""
        return RepositoryState(**{role: self._newest(session, role) for role in ROLES})

    def metadata(self, session: Session, name: str) -> bytes:
        """Returns a metadata file by the name a client asks for.

        Raises:
            NotFoundError: There is none.
        """
        stem = name.removesuffix(".json")
        version, _, role = stem.rpartition(".")
        number = self._newest(session, "timestamp") if stem == "timestamp" else None
        if number is None and version.isdigit() and role in ROLES:
            number = int(version)
        row = session.get(MetadataRow, (role, number)) if number else None
        if row is None:
            raise NotFoundError(f"there is no metadata {name}")
        return row.body

    def targets(self, session: Session) -> dict[str, TargetFile]:
        """Returns every target that is listed."""
        return dict(self._role(session, "targets", Targets).signed.targets)

    def check(self, session: Session, body: bytes, expected: int) -> Metadata[Targets]:
        """Checks targets metadata that somebody offers.

        Raises:
            StaleError: Another version was published in between.
            RequestError: Not signed as root demands, expired, or not the next version.
        """
        current = self._newest(session, "targets")
        if expected != current:
            raise StaleError(f"targets are at version {current}, not {expected}", "publish again")
        root = self._role(session, "root", Root)
        try:
            offered = Metadata[Targets].from_bytes(body)
            root.signed.verify_delegate("targets", offered.signed_bytes, offered.signatures)
        except (RepositoryError, ValueError) as error:
            raise RequestError(f"targets are not signed as root demands: {error}") from None
        if offered.signed.version != current + 1:
            raise RequestError(f"targets must have version {current + 1}")
        if offered.signed.is_expired():
            raise RequestError("targets are expired")
        return offered

    def accept(self, session: Session, body: bytes, offered: Metadata[Targets]) -> RepositoryState:
        """Stores checked targets and signs snapshot and timestamp over them."""
        self._put(session, "targets", offered.signed.version, body)
        self._sign_snapshot(session, offered.signed.version)
        return self.state(session)

    def renew(self, session: Session, now: datetime) -> bool:
        """Signs snapshot and timestamp anew when half of their life is over; says whether."""
        snapshot = self._role(session, "snapshot", Snapshot).signed
        timestamp = self._role(session, "timestamp", Timestamp).signed
        if snapshot.expires - now < self._snapshot_life / 2:
            self._sign_snapshot(session, self._newest(session, "targets"))
            return True
        if timestamp.expires - now < self._timestamp_life / 2:
            self._sign_timestamp(session, self._newest(session, "snapshot"))
            return True
        return False

    def _import(self, session: Session, root: bytes, targets: bytes) -> None:
        try:
            parsed = Metadata[Root].from_bytes(root)
            parsed.signed.verify_delegate("root", parsed.signed_bytes, parsed.signatures)
            first = Metadata[Targets].from_bytes(targets)
            parsed.signed.verify_delegate("targets", first.signed_bytes, first.signatures)
            for role, signer in (
                ("snapshot", self._keys.snapshot), ("timestamp", self._keys.timestamp)
            ):  # fmt: skip
                parsed.signed.get_key(signer.public_key.keyid)
                if signer.public_key.keyid not in parsed.signed.roles[role].keyids:
                    raise ValueError(f"the {role} key is not root's")
        except (RepositoryError, ValueError) as error:
            raise InputError(f"first metadata does not hold together: {error}") from None
        self._put(session, "root", 1, root)
        self._put(session, "targets", 1, targets)
        self._sign_snapshot(session, 1)

    def _sign_snapshot(self, session: Session, targets_version: int) -> None:
        version = self._next(session, "snapshot")
        signed = Snapshot(
            version=version,
            expires=_now() + self._snapshot_life,
            meta={"targets.json": MetaFile(targets_version)},
        )
        metadata = Metadata(signed)
        metadata.sign(self._keys.snapshot)
        self._put(session, "snapshot", version, metadata.to_bytes())
        self._sign_timestamp(session, version)

    def _sign_timestamp(self, session: Session, snapshot_version: int) -> None:
        version = self._next(session, "timestamp")
        signed = Timestamp(
            version=version,
            expires=_now() + self._timestamp_life,
            snapshot_meta=MetaFile(snapshot_version),
        )
        metadata = Metadata(signed)
        metadata.sign(self._keys.timestamp)
        self._put(session, "timestamp", version, metadata.to_bytes())
        self.timestamp_version = version

    def _next(self, session: Session, role: str) -> int:
        """Returns a version above all that boards have seen, also after a restore from backup."""
        return max(self._newest(session, role) + 1, int(_now().timestamp()))

    def _role(self, session: Session, role: str, kind: type) -> Metadata:  # type: ignore[type-arg]
        row = session.get(MetadataRow, (role, self._newest(session, role)))
        if row is None:
            raise NotFoundError(f"there is no {role} metadata")
        return Metadata[kind].from_bytes(row.body)  # type: ignore[valid-type]

    @staticmethod
    def _newest(session: Session, role: str) -> int:
        query = select(MetadataRow.version).where(MetadataRow.role == role)
        return session.exec(query.order_by(col(MetadataRow.version).desc()).limit(1)).first() or 0

    @staticmethod
    def _put(session: Session, role: str, version: int, body: bytes) -> None:
        session.add(MetadataRow(role=role, version=version, body=body))
        session.flush()


def _now() -> datetime:
    return datetime.now(timezone.utc).replace(microsecond=0)


def hashes(targets: Mapping[str, TargetFile]) -> dict[str, str]:
    """Returns target path → SHA-256.

    Raises:
        RequestError: A target has none.
    """
    found = {path: target.hashes.get("sha256", "") for path, target in targets.items()}
    missing = [path for path, digest in found.items() if not digest]
    if missing:
        raise RequestError(f"target {missing[0]} has no SHA-256")
    return found
