"""Who this board is: a key made here that never leaves, and what the server gave for it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import msgspec
from securesystemslib.signer import CryptoSigner

from kedge_agent.disk import disk_error, settle, write_whole
from kedge_shared import signing, wire
from kedge_shared.errors import StorageError
from kedge_shared.protocol import ENROLMENT_TYPE, DeviceFacts, Enrolled, Enrolment

TOKEN_ENV = "KEDGE_ENROL_TOKEN"  # noqa: S105 - the name of a variable
_TOKEN_LIMIT_BYTES = 4096


class Enrolling(Protocol):
    """What enrolment needs to know of a board: the agent's settings, or a bench worker's."""

    @property
    def state_dir(self) -> Path:
        """Where key and identity are kept."""
        ...

    @property
    def device(self) -> str:
        """Name in the fleet."""
        ...

    @property
    def device_class(self) -> str:
        """What the board is."""
        ...

    @property
    def tags(self) -> Mapping[str, str]:
        """For selectors."""
        ...

    @property
    def enrolment_token_file(self) -> Path | None:
        """File with the one-time token."""
        ...

    @property
    def serves(self) -> bool:
        """It runs the agent, so rollouts reach it."""
        ...


@dataclass(frozen=True)
class Identity:
    """An enrolled board.

    Attributes:
        signer: Its key.
        device: Its name.
        token: Lasting bearer token of a board that was enrolled by an older agent; else empty.
    """

    signer: CryptoSigner
    device: str
    token: str


def device_key(folder: Path) -> CryptoSigner:
    """Returns the board's key, made at the first call."""
    path = folder / "device.key"
    if not path.exists():
        _make_key(folder, path)
    return signing.load_private_key(path)


def seal_key(folder: Path) -> CryptoSigner:
    """Returns the key that seals what is built on this board, made at the first call.

    Not the key that it is known by: that one is changed now and then, and the plan that serves has
    to open afterwards.
    """
    path = folder / "seal.key"
    if not path.exists():
        _make_key(folder, path)
    return signing.load_private_key(path)


def sealer(folder: Path) -> dict[str, Any] | None:
    """Returns the public key of :func:`seal_key`.

    Returns:
        It, or ``None`` where the disk takes no key: a board that starts on a full disk goes on
        serving what was signed, and builds nothing.
    """
    try:
        return signing.key_to_dict(seal_key(folder).public_key)
    except StorageError:
        return None


def _make_key(folder: Path, path: Path) -> None:
    """Makes the key aside: half of one under its name would keep a board from starting for good."""
    scratch = folder / f".{path.name}.new"
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        scratch.unlink(missing_ok=True)
        signing.save_private_key(signing.generate(), scratch)
        settle(scratch, path)
    except OSError as error:
        raise disk_error(path, error) from None


def load(folder: Path) -> Identity | None:
    """Returns who this board is, or ``None`` before enrolment."""
    try:
        data = (folder / "identity.json").read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise StorageError(f"identity cannot be read: {error.strerror}") from None
    enrolled = msgspec.json.decode(data, type=Enrolled)
    return Identity(device_key(folder), enrolled.device, enrolled.token)


def keep(folder: Path, enrolled: Enrolled) -> Identity:
    """Keeps what the server answered to an enrolment."""
    write_whole(folder / "identity.json", wire.encode(enrolled))
    return Identity(device_key(folder), enrolled.device, enrolled.token)


def request(settings: Enrolling, facts: DeviceFacts) -> dict[str, object]:
    """Returns the signed enrolment request."""
    signer = device_key(settings.state_dir)
    enrolment = Enrolment(
        name=settings.device,
        device_class=settings.device_class,
        public_key=signing.key_to_dict(signer.public_key),
        facts=facts,
        tags=dict(settings.tags),
        serves=settings.serves,
        renews=True,
    )
    return signing.seal(enrolment, ENROLMENT_TYPE, signer)


def enrolment_token(settings: Enrolling) -> str:
    """Returns the one-time token; empty where there is none, and the board asks without one.

    Raises:
        InputError: Its file cannot be read.
    """
    path = settings.enrolment_token_file
    if path is not None and path.is_file():
        return wire.read_limited(path, "enrolment token", _TOKEN_LIMIT_BYTES).decode().strip()
    return os.environ.get(TOKEN_ENV, "").strip()
