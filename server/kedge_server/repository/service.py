"""Keeps TUF metadata: takes targets that the builders signed, signs snapshot and timestamp."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

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

from kedge_server.artifacts.store import Store
from kedge_server.database import exclusive
from kedge_server.errors import NotFoundError, RequestError
from kedge_server.replicas import changes
from kedge_server.repository.publication import TOP_ROLES, Offline, follow, role_of
from kedge_server.repository.signers import OnlineKeys
from kedge_server.repository.tables import MetadataRow
from kedge_shared import wire
from kedge_shared.api import RepositoryState
from kedge_shared.errors import InputError
from kedge_shared.trust import (
    DIRECTOR_LIMIT_BYTES,
    DIRECTOR_PATH,
    MODEL_ROLE_PREFIX,
    DirectorKey,
)

TARGETS_LIMIT_BYTES = 5_000_000
#: Versions of online roles are Unix times.
_LONGEST_VERSION = 12
#: One server at a time signs.
_LOCK = "repository"


class ImageRepository:
    """The repository of one server.

    Args:
        keys: Online keys.
        store: Where target files lie.
        timestamp_life: How long a timestamp holds.
        snapshot_life: How long a snapshot holds.
    """

    def __init__(
        self, keys: OnlineKeys, store: Store, timestamp_life: timedelta,
        snapshot_life: timedelta,
    ) -> None:  # fmt: skip
        self._keys, self._store = keys, store
        self._timestamp_life, self._snapshot_life = timestamp_life, snapshot_life
        self.timestamp_version = 0
        #: Why metadata could not be renewed, empty while it can.
        self.alarm = ""

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
        exclusive(session, _LOCK)
        stored = session.get(MetadataRow, ("root", 1))
        if stored is None:
            self._store.add(director)
            self._import(session, root, targets)
        elif stored.body != root:
            raise InputError(f"{first} is of another repository than the database")
        self.refresh(session)

    def refresh(self, session: Session) -> None:
        """Learns what other servers have signed."""
        self.timestamp_version = self._newest(session, "timestamp")

    def take_up(self, session: Session) -> None:
        """Signs snapshot and timestamp anew, as the first thing that a leader does.

        A database restored from a backup holds versions that boards have gone beyond.
        """
        exclusive(session, _LOCK)
        self._sign_snapshot(session)
        changes.note(session, "metadata")

    def state(self, session: Session) -> RepositoryState:
        """Returns the newest version of every role."""
        return RepositoryState(
            **{role: self._newest(session, role) for role in TOP_ROLES},
            models={role: self._newest(session, role) for role in self._models(session)},
        )

    def metadata(self, session: Session, name: str) -> bytes:
        """Returns a metadata file by the name a client asks for.

        Raises:
            NotFoundError: There is none.
        """
        stem = name.removesuffix(".json")
        version, _, role = stem.partition(".")
        number = None
        if stem == "timestamp":
            role, number = stem, self._newest(session, stem)
        elif version.isdigit() and len(version) <= _LONGEST_VERSION:
            number = int(version)
        row = session.get(MetadataRow, (role, number)) if number else None
        if row is None:
            raise NotFoundError(f"there is no metadata {name}")
        return row.body

    def targets(self, session: Session) -> dict[str, TargetFile]:
        """Returns every target that is listed."""
        return self.offline(session).listed

    def director(self, session: Session) -> DirectorKey:
        """Returns the key that may assign, as targets name it.

        Raises:
            RequestError: Targets name none.
        """
        listed = self.offline(session).targets.signed.targets.get(DIRECTOR_PATH)
        if listed is None:
            raise RequestError(f"targets do not list {DIRECTOR_PATH}")
        body = self._store.read(listed.hashes["sha256"], DIRECTOR_LIMIT_BYTES)
        return wire.decode(body, DirectorKey, "director's key")

    @property
    def held_keys(self) -> frozenset[str]:
        """Ids of the keys that this server signs metadata with."""
        return frozenset(
            each.public_key.keyid for keys in self._keys.signers.values() for each in keys
        )

    def online(self, session: Session) -> dict[str, Metadata[Any]]:
        """Returns the newest metadata of the roles that the server signs."""
        return {role: self._role(session, role) for role in self._keys.signers}

    def offline(self, session: Session) -> Offline:
        """Returns the newest metadata of the roles that others sign."""
        return Offline(
            self._role(session, "root"),
            self._role(session, "targets"),
            {role: self._role(session, role) for role in self._models(session)},
        )

    def follow(self, session: Session, offered: Mapping[str, bytes]) -> Offline:
        """Checks metadata that somebody offers; errors as :func:`publication.follow`."""
        # Of two servers that are offered the next version, the second sees the first's.
        exclusive(session, _LOCK)
        online = {role: {each.public_key.keyid for each in keys}
                  for role, keys in self._keys.signers.items()}  # fmt: skip
        return follow(self.offline(session), offered, online, _now())

    def accept(
        self, session: Session, offered: Mapping[str, bytes], after: Offline
    ) -> RepositoryState:
        """Stores checked metadata and signs snapshot and timestamp over it."""
        versions: dict[str, Metadata[Any]] = {
            "root": after.root, "targets": after.targets, **after.models,
        }  # fmt: skip
        for name, body in offered.items():
            role = role_of(name)
            version = versions[role].signed.version if role == name else int(name.split(".")[0])
            self._put(session, role, version, body)
        self._sign_snapshot(session)
        changes.note(session, "metadata", "published")
        return self.state(session)

    def renew(self, session: Session, now: datetime) -> bool:
        """Signs snapshot and timestamp anew when half of their life is over; says whether."""
        exclusive(session, _LOCK)
        snapshot = self._role(session, "snapshot").signed
        timestamp = self._role(session, "timestamp").signed
        if snapshot.expires - now < self._snapshot_life / 2:
            self._sign_snapshot(session)
            changes.note(session, "metadata")
            return True
        if timestamp.expires - now < self._timestamp_life / 2:
            self._sign_timestamp(session, self._newest(session, "snapshot"))
            changes.note(session, "metadata")
            return True
        return False

    def _import(self, session: Session, root: bytes, targets: bytes) -> None:
        try:
            parsed = Metadata[Root].from_bytes(root)
            parsed.signed.verify_delegate("root", parsed.signed_bytes, parsed.signatures)
            first = Metadata[Targets].from_bytes(targets)
            parsed.signed.verify_delegate("targets", first.signed_bytes, first.signatures)
            for role, signers in self._keys.signers.items():
                held = {each.public_key.keyid for each in signers}
                if not held & set(parsed.signed.roles[role].keyids):
                    raise ValueError(f"the {role} key is not root's")
        except (RepositoryError, ValueError) as error:
            raise InputError(f"first metadata does not hold together: {error}") from None
        self._put(session, "root", 1, root)
        self._put(session, "targets", 1, targets)
        self._sign_snapshot(session)

    def _sign_snapshot(self, session: Session) -> None:
        version = self._next(session, "snapshot")
        # Also a role that is delegated no more: clients refuse a snapshot that lost one.
        roles = ("targets", *self._models(session))
        signed = Snapshot(
            version=version,
            expires=_now() + self._snapshot_life,
            meta={f"{role}.json": MetaFile(self._newest(session, role)) for role in roles},
        )
        self._sign(session, "snapshot", Metadata(signed))
        self._sign_timestamp(session, version)

    def _sign_timestamp(self, session: Session, snapshot_version: int) -> None:
        version = self._next(session, "timestamp")
        signed = Timestamp(
            version=version,
            expires=_now() + self._timestamp_life,
            snapshot_meta=MetaFile(snapshot_version),
        )
        self._sign(session, "timestamp", Metadata(signed))
        self.timestamp_version = version

    def _sign(self, session: Session, role: str, metadata: Metadata[Any]) -> None:
        """Signs with those of the role's keys that the newest root names.

        Raises:
            InputError: There are too few.
        """
        named = self._role(session, "root").signed.roles[role]
        for each in self._keys.signers[role]:
            if each.public_key.keyid in named.keyids:
                metadata.sign(each, append=True)
        if len(metadata.signatures) < named.threshold:
            raise InputError(
                f"this server holds no {role} key that root names",
                f"bring {', '.join(each[:12] for each in named.keyids)} into its online folder",
            )
        self._put(session, role, metadata.signed.version, metadata.to_bytes())

    def _next(self, session: Session, role: str) -> int:
        """Returns a version above all that boards have seen, also after a restore from backup."""
        return max(self._newest(session, role) + 1, int(_now().timestamp()))

    def _role(self, session: Session, role: str) -> Metadata[Any]:
        row = session.get(MetadataRow, (role, self._newest(session, role)))
        if row is None:
            raise NotFoundError(f"there is no {role} metadata")
        return Metadata.from_bytes(row.body)

    @staticmethod
    def _models(session: Session) -> list[str]:
        query = select(MetadataRow.role).where(col(MetadataRow.role).startswith(MODEL_ROLE_PREFIX))
        return sorted(session.exec(query.distinct()).all())

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
