"""Signed messages: DSSE envelopes over exact bytes, and Ed25519 key files.

DSSE (https://github.com/secure-systems-lab/dsse) signs type and payload together, so an
assignment cannot be passed off as a report, and nothing is canonicalised before it is checked.
"""

from __future__ import annotations

import copy
import os
import stat
from collections.abc import Iterable
from pathlib import Path
from typing import Any, TypeVar

from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from securesystemslib.dsse import Envelope
from securesystemslib.exceptions import VerificationError
from securesystemslib.signer import CryptoSigner, Key, SSlibKey

from kedge_shared import wire
from kedge_shared.errors import InputError, StorageError, TrustError

T = TypeVar("T")

#: Passphrase of private keys; unset: keys are stored plain, mode 0600.
PASSPHRASE_ENV = "KEDGE_KEY_PASSPHRASE"  # noqa: S105 - the name of a variable
_KEY_LIMIT_BYTES = 16 * 1024


def seal(value: object, kind: str, signer: CryptoSigner) -> dict[str, Any]:
    """Signs ``value`` as a message of type ``kind``.

    Returns:
        The DSSE envelope as a JSON dictionary.
    """
    return seal_by(value, kind, [signer])


def seal_by(value: object, kind: str, signers: Iterable[CryptoSigner]) -> dict[str, Any]:
    """Signs like :func:`seal`, with each of several keys."""
    envelope = Envelope(wire.encode(value), kind, {})
    for each in signers:
        envelope.sign(each)
    return dict(envelope.to_dict())


def unseal(data: dict[str, Any], kind: str, message: type[T], key: Key, *, limit_bytes: int) -> T:
    """Checks an envelope's type and signature, then decodes its payload.

    Raises:
        TrustError: Malformed (``envelope``), of another type (``type``), not signed by ``key``
            (``signature``), too large (``length``), or the signed payload is malformed
            (``payload``).
    """
    envelope = _read_envelope(data)
    if envelope.payload_type != kind:
        raise TrustError("type", f"signed message is {envelope.payload_type!r}, not {kind!r}")
    if len(envelope.payload) > limit_bytes:
        raise TrustError("length", f"signed message is larger than {limit_bytes} bytes")
    try:
        envelope.verify([key], 1)
    except (VerificationError, ValueError) as error:
        raise TrustError("signature", f"message is not signed by {key.keyid[:12]}") from error
    try:
        return wire.decode(envelope.payload, message, "signed message")
    except InputError as error:
        raise TrustError("payload", error.what) from None


def peek(data: dict[str, Any], message: type[T]) -> T:
    """Decodes an envelope's payload **without** any check, to learn whose key to check it with.

    Raises:
        TrustError: Malformed.
    """
    try:
        return wire.decode(_read_envelope(data).payload, message, "signed message")
    except InputError as error:
        raise TrustError("payload", error.what) from None


def _read_envelope(data: dict[str, Any]) -> Envelope:
    try:
        # securesystemslib takes the dictionary apart while it reads: give it one of its own.
        return Envelope.from_dict(copy.deepcopy(data))
    # Boundary: it raises whatever a hostile dictionary makes it stumble over.
    except Exception as error:  # noqa: BLE001
        raise TrustError("envelope", f"signed message is malformed: {error}") from None


def key_to_dict(key: Key) -> dict[str, Any]:
    """Returns a public key as a JSON dictionary that holds its ``keyid``."""
    return {"keyid": key.keyid, **key.to_dict()}


def key_from_dict(data: dict[str, Any]) -> Key:
    """Reads :func:`key_to_dict`'s dictionary; only Ed25519 is taken.

    Raises:
        TrustError: Malformed or of another kind (``key``).
    """
    try:
        rest = dict(data)
        keyid = str(rest.pop("keyid"))
        key = SSlibKey.from_dict(keyid, rest)
        computed = SSlibKey.from_crypto(CryptoSignerKey.load(key)).keyid
    # Boundary: key material from outside.
    except Exception as error:  # noqa: BLE001
        raise TrustError("key", f"public key is malformed: {error}") from None
    if key.scheme != "ed25519" or computed != keyid:
        raise TrustError("key", "public key is not Ed25519, or its id is not its own")
    return key


class CryptoSignerKey:
    """Reads the raw Ed25519 public key out of a securesystemslib key."""

    @staticmethod
    def load(key: SSlibKey) -> Any:
        """Returns the ``cryptography`` public key."""
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

        return Ed25519PublicKey.from_public_bytes(bytes.fromhex(key.keyval["public"]))


def generate() -> CryptoSigner:
    """Returns a fresh Ed25519 signer."""
    return CryptoSigner.generate_ed25519()


def save_private_key(signer: CryptoSigner, path: Path) -> None:
    """Writes a private key as PEM, mode 0600, encrypted if ``KEDGE_KEY_PASSPHRASE`` is set.

    Raises:
        StorageError: The file is there already or cannot be written.
    """
    passphrase = os.environ.get(PASSPHRASE_ENV, "").encode()
    encryption = BestAvailableEncryption(passphrase) if passphrase else NoEncryption()
    pem = signer._private_key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption)
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(fd, "wb") as file:
            file.write(pem)
            file.flush()
            os.fsync(file.fileno())
    except FileExistsError:
        raise StorageError(f"key {path} exists", "keys are never overwritten: move it") from None
    except OSError as error:
        raise StorageError(f"key {path} cannot be written: {error.strerror}") from None


def load_private_key(path: Path) -> CryptoSigner:
    """Reads a private key written by :func:`save_private_key`.

    Raises:
        InputError: Missing, open to others, encrypted with another passphrase, or no Ed25519 key.
    """
    pem = wire.read_limited(path, "key", _KEY_LIMIT_BYTES)
    if path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise InputError(f"key {path} can be read by others", f"chmod 600 {path}")
    return private_key_from_pem(pem, f"key {path}")


def private_key_from_pem(pem: bytes, what: str) -> CryptoSigner:
    """Reads a private key; ``what`` names it when it cannot be opened.

    Raises:
        InputError: Encrypted with another passphrase, or no key.
    """
    passphrase = os.environ.get(PASSPHRASE_ENV, "").encode() or None
    encrypted = b"ENCRYPTED" in pem
    try:
        private = load_pem_private_key(pem, passphrase if encrypted else None)
        return CryptoSigner(private)
    except (ValueError, TypeError):
        raise InputError(
            f"{what} cannot be opened", f"set {PASSPHRASE_ENV} to its passphrase"
        ) from None
