"""The keys of a fleet and the first metadata that they sign (``kedge keys init``).

    DIR/offline/{root,targets}.key               stay with the people who release
    DIR/online/{snapshot,timestamp,director}.key go to the server
    DIR/repository/{1.root.json,1.targets.json,director.json}   public; 1.root.json is pinned

Roles as in the TUF specification, section 2.1; the director is Uptane's, its public key an
offline-signed target, so that nobody who holds the server alone can put another in its place.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path

from securesystemslib.signer import CryptoSigner
from tuf.api.metadata import Metadata, Root, TargetFile, Targets

from kedge_shared import signing, wire
from kedge_shared.errors import InputError, StorageError
from kedge_shared.trust import DIRECTOR_PATH, DirectorKey

OFFLINE_ROLES = ("root", "targets")
ONLINE_ROLES = ("snapshot", "timestamp", "director")
ROOT_DAYS = 365
TARGETS_DAYS = 180


@dataclass(frozen=True)
class KeySet:
    """Where :func:`create` put things.

    Attributes:
        offline: Folder of root's and targets' keys.
        online: Folder that the server gets.
        repository: Public first metadata.
    """

    offline: Path
    online: Path
    repository: Path

    @classmethod
    def at(cls, folder: Path) -> KeySet:
        """Returns the places under ``folder``."""
        return cls(folder / "offline", folder / "online", folder / "repository")

    @property
    def root(self) -> Path:
        """The metadata that boards and publishers pin."""
        return self.repository / "1.root.json"


def create(folder: Path, now: datetime | None = None) -> KeySet:
    """Makes every key and signs root and targets version 1.

    Args:
        folder: Must not exist; appears whole or not at all.
        now: Start of validity.

    Raises:
        InputError: The folder exists.
        StorageError: It cannot be written.
    """
    if folder.exists():
        raise InputError(f"{folder} exists", "keys are never overwritten: name another folder")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(prefix=".keys-", dir=folder.parent))
    except OSError as error:
        raise StorageError(f"{folder} cannot be written: {error.strerror}") from None
    try:
        _write_all(KeySet.at(scratch), now or datetime.now(timezone.utc))
        scratch.rename(folder)
    except OSError as error:
        raise StorageError(f"{folder} cannot be written: {error.strerror}") from None
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return KeySet.at(folder)


def create_pair(path: Path) -> Path:
    """Makes a key that signs nothing until somebody names it: in a role, or on bench workers.

    Args:
        path: Of the private key; must not exist.

    Returns:
        Path of the public part, ``PATH.pub``.

    Raises:
        StorageError: One of the files is there already or cannot be written.
    """
    public = path.with_name(f"{path.name}.pub")
    signer = signing.generate()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        signing.save_private_key(signer, path)
        _write(public, wire.encode_pretty(signing.key_to_dict(signer.public_key)))
    except OSError as error:
        raise StorageError(f"{public} cannot be written: {error.strerror}") from None
    return public


def write_public(path: Path, value: object) -> None:
    """Writes something public as JSON.

    Raises:
        StorageError: The file is there already or cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _write(path, wire.encode_pretty(value))
    except OSError as error:
        raise StorageError(f"{path} cannot be written: {error.strerror}") from None


def _write_all(places: KeySet, now: datetime) -> None:
    for each in (places.offline, places.online):
        each.mkdir(mode=0o700)
    places.repository.mkdir(mode=0o755)  # public: everybody may read it
    signers = {role: signing.generate() for role in OFFLINE_ROLES + ONLINE_ROLES}
    for role, signer in signers.items():
        home = places.offline if role in OFFLINE_ROLES else places.online
        signing.save_private_key(signer, home / f"{role}.key")
    director = DirectorKey(epoch=1, key=signing.key_to_dict(signers["director"].public_key))
    director_bytes = wire.encode_pretty(director)
    _write(places.repository / DIRECTOR_PATH, director_bytes)
    root = _first_root(signers, now)
    targets = Metadata(Targets(expires=now + timedelta(days=TARGETS_DAYS)))
    targets.signed.targets[DIRECTOR_PATH] = TargetFile.from_data(
        DIRECTOR_PATH, director_bytes, ["sha256"]
    )
    targets.sign(signers["targets"])
    _write(places.root, root.to_bytes())
    _write(places.repository / "1.targets.json", targets.to_bytes())


def _first_root(signers: dict[str, CryptoSigner], now: datetime) -> Metadata[Root]:
    root = Root(expires=now + timedelta(days=ROOT_DAYS), consistent_snapshot=True)
    for role in ("root", "targets", "snapshot", "timestamp"):
        root.add_key(signers[role].public_key, role)
    metadata = Metadata(root)
    metadata.sign(signers["root"])
    return metadata


def _write(path: Path, data: bytes) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
    with os.fdopen(fd, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
