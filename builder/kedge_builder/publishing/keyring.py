"""The private keys at hand, wherever they lie: files, the environment, a PKCS#11 token.

    DIR/offline/*.key           PEM, encrypted when KEDGE_KEY_PASSPHRASE was set
    DIR/offline/*.signer.json   a key that stays in a token: its URI and public part
    KEDGE_SIGNING_KEYS          PEM blocks, one after the other (secrets of a CI system)

Who may sign what stands in the metadata, by key id; file names are for people.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from securesystemslib.dsse import Envelope
from securesystemslib.signer import CryptoSigner, Key, Signer
from tuf.api.exceptions import UnsignedMetadataError
from tuf.api.metadata import DelegatedRole, Metadata, Role

from kedge_shared import signing, wire
from kedge_shared.errors import InputError

KEYS_ENV = "KEDGE_SIGNING_KEYS"
PIN_ENV = "KEDGE_HSM_PIN"
_PEM = re.compile(rb"-----BEGIN [A-Z ]+-----.+?-----END [A-Z ]+-----", re.DOTALL)
_LIMIT_BYTES = 64 * 1024


@dataclass(frozen=True)
class TokenKey:
    """A key that never leaves its token.

    Attributes:
        uri: securesystemslib's, such as ``hsm:2?label=kedge``.
        key: Public key dictionary with its ``keyid``.
    """

    uri: str
    key: dict[str, Any]


class Keyring:
    """Keys by their id.

    Args:
        signers: Key id → signer.
    """

    def __init__(self, signers: Mapping[str, Signer]) -> None:
        self._signers = dict(signers)

    @classmethod
    def load(cls, offline: Path) -> Keyring:
        """Opens every key that lies in a folder or the environment.

        Raises:
            InputError: One cannot be opened.
        """
        found: list[Signer] = [
            signing.load_private_key(each) for each in sorted(offline.glob("*.key"))
        ]
        found += [_from_token(each) for each in sorted(offline.glob("*.signer.json"))]
        found += _from_environment()
        return cls({each.public_key.keyid: each for each in found})

    def __contains__(self, keyid: str) -> bool:
        return keyid in self._signers

    def add(self, signer: Signer) -> None:
        """Takes one more."""
        self._signers[signer.public_key.keyid] = signer

    def sign(self, metadata: Metadata[Any], name: str, *roles: Role | DelegatedRole) -> None:
        """Signs with every key at hand that one of ``roles`` names; older signatures go.

        Args:
            metadata: Signed in place.
            name: For the message.
            roles: Who must sign; of each its threshold. A new root needs the old one's word too.

        Raises:
            InputError: Too few of the keys are at hand.
        """
        metadata.signatures.clear()
        for keyid in sorted({keyid for role in roles for keyid in role.keyids}):
            if keyid in self._signers:
                _sign(metadata, self._signers[keyid])
        for role in roles:
            here = set(role.keyids) & set(metadata.signatures)
            if len(here) < role.threshold:
                raise InputError(
                    f"{name} takes {role.threshold} of {len(role.keyids)} key(s), "
                    f"{len(here)} are at hand",
                    f"bring {', '.join(each[:12] for each in role.keyids if each not in here)} "
                    f"into the offline folder or {KEYS_ENV}",
                )

    def seal(self, payload: bytes, kind: str, role: Role | DelegatedRole) -> bytes:
        """Signs a message with every key at hand that a role names.

        Returns:
            DSSE envelope as JSON.

        Raises:
            InputError: None of the keys is at hand, or one does not sign.
        """
        envelope = Envelope(payload, kind, {})
        for keyid in sorted(set(role.keyids) & self._signers.keys()):
            try:
                envelope.sign(self._signers[keyid])
            # Boundary: what a token's library makes of it.
            except Exception as error:  # noqa: BLE001
                said = f"key {keyid[:12]} does not sign: {error!r}"
                raise InputError(said, f"check the token and {PIN_ENV}") from None
        if not envelope.signatures:
            raise InputError("none of the keys that list the release is at hand")
        return wire.encode_pretty(envelope.to_dict())


def _sign(metadata: Metadata[Any], signer: Signer) -> None:
    try:
        metadata.sign(signer, append=True)
    except UnsignedMetadataError as error:
        raise InputError(
            f"key {signer.public_key.keyid[:12]} does not sign: {error.__cause__!r}",
            f"check the token and {PIN_ENV}",
        ) from None


def import_token(keyid: int, label: str | None = None) -> TokenKey:
    """Reads the public part of a key in a PKCS#11 token (``PYKCS11LIB`` names its library).

    Args:
        keyid: Of the key pair, in the token.
        label: Which token, where there are several.

    Raises:
        InputError: There is no such token or key, or what drives tokens is not installed.
    """
    from securesystemslib.exceptions import UnsupportedLibraryError
    from securesystemslib.signer import HSMSigner

    try:
        uri, key = HSMSigner.import_(keyid, label, _pin)
    except UnsupportedLibraryError:
        raise InputError("tokens need python-pkcs11", "pip install 'kedge[pkcs11]'") from None
    # Boundary: python-pkcs11 raises its own errors, and what a token's library makes of it.
    except Exception as error:  # noqa: BLE001
        raise InputError(
            f"key {keyid} cannot be read from the token: {error!r}",
            f"check PYKCS11LIB, {PIN_ENV} and the label",
        ) from None
    return TokenKey(uri, signing.key_to_dict(key))


def _pin(_: str) -> str:
    return os.environ.get(PIN_ENV, "")


def read_public(path: Path) -> Key:
    """Reads a public key: a ``.pub`` or ``.signer.json`` file.

    Raises:
        InputError: It cannot be read, or is none.
    """
    body = wire.decode(
        wire.read_limited(path, "public key", _LIMIT_BYTES), dict[str, Any], str(path)
    )
    return _public(body.get("key") if "uri" in body else body, path)


def _public(body: object, path: Path) -> Key:
    try:
        fields = dict(body)  # type: ignore[call-overload]
        return Key.from_dict(str(fields.pop("keyid")), fields)
    # Boundary: key material from outside.
    except Exception as error:  # noqa: BLE001
        raise InputError(f"{path} holds no public key: {error!r}") from None


def _from_token(path: Path) -> Signer:
    found = wire.decode(wire.read_limited(path, "token key", _LIMIT_BYTES), TokenKey, str(path))
    try:
        return Signer.from_priv_key_uri(found.uri, _public(found.key, path), _pin)
    # Boundary: securesystemslib and the token's library.
    except Exception as error:  # noqa: BLE001
        raise InputError(
            f"{path}: the token cannot be opened: {error!r}", f"set PYKCS11LIB and {PIN_ENV}"
        ) from None


def _from_environment() -> list[CryptoSigner]:
    pem = os.environ.get(KEYS_ENV, "").encode()
    return [signing.private_key_from_pem(each, KEYS_ENV) for each in _PEM.findall(pem)]
