"""Nonces and access tokens of boards: both prove themselves, so that a poll looks nothing up.

A token names board, key and end, under a MAC. Its key is derived from the director's, which every
replica of a server holds and no backup of the database does. That a nonce is used once is kept in
the database (:class:`UsedNonceRow`): only requests that a board of the fleet has signed get there,
so that nobody else can fill it.
"""

from __future__ import annotations

import hmac
import secrets
import time
from base64 import urlsafe_b64encode
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import blake2s

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from securesystemslib.signer import CryptoSigner

from kedge_server.errors import UnauthorizedError
from kedge_shared.access import AccessToken, Nonce

PREFIX = "kda~"
#: Long enough for a board behind a slow line, short enough to remember every nonce that was used.
NONCE_SECONDS = 120.0
_DRAWN_AT_ONCE = 256
#: Of a fingerprint: what tells a board's key from the one it had before.
_KEY_DIGITS = 16


@dataclass(frozen=True)
class Bearer:
    """What an access token says.

    Attributes:
        device: Whose.
        key: Beginning of the fingerprint of the key that asked for it.
    """

    device: str
    key: str


def secret_of(signers: Sequence[CryptoSigner]) -> bytes:
    """Derives the key of nonces and tokens from the director's (RFC 5869)."""
    seed = signers[0]._private_key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
    return HKDF(SHA256(), 32, None, b"kedge device access").derive(seed)


class Access:
    """Makes and reads nonces and tokens. Thread-safe: of what it gave it keeps nothing.

    Args:
        secret: Key of the MAC.
        life_seconds: Of a token.
        clock: Tells Unix seconds.
    """

    def __init__(
        self, secret: bytes, life_seconds: float, clock: Callable[[], float] = time.time
    ) -> None:
        self._secret, self.life_seconds, self._clock = secret, life_seconds, clock
        self._drawn: list[str] = []

    def nonce(self) -> Nonce:
        """Returns a fresh nonce."""
        until = int(self._clock() + NONCE_SECONDS)
        body = f"{until:x}~{self._draw()}"
        return Nonce(nonce=f"{body}~{self._mac('nonce', body)}", seconds=NONCE_SECONDS)

    def _draw(self) -> str:
        """Returns 16 random characters, 96 bits; drawn many at once, for every poll takes some."""
        try:
            return self._drawn.pop()
        except IndexError:
            text = secrets.token_urlsafe(12 * _DRAWN_AT_ONCE)
            first, *rest = (text[at : at + 16] for at in range(0, len(text), 16))
            self._drawn.extend(rest)
            return first

    def nonce_ends(self, text: str) -> float:
        """Returns when a nonce ends.

        Raises:
            UnauthorizedError: It is none of ours, or has ended.
        """
        body = self._proven("nonce", text)
        until = int(body.partition("~")[0], 16) if body else 0
        if until < self._clock():
            raise UnauthorizedError("this nonce is unknown or too old", "ask for another one")
        return float(until)

    def issue(self, device: str, fingerprint: str) -> AccessToken:
        """Returns a token for a board that proved its key."""
        until = int(self._clock() + self.life_seconds)
        body = f"{device}~{fingerprint[:_KEY_DIGITS]}~{until:x}"
        return AccessToken(
            token=f"{PREFIX}{body}~{self._mac('token', body)}", seconds=self.life_seconds
        )

    def read(self, token: str) -> Bearer | None:
        """Returns what a token says, or ``None`` if it is none of ours or has ended."""
        body = self._proven("token", token.removeprefix(PREFIX))
        if not body:
            return None
        device, key, until = body.split("~")
        return Bearer(device, key) if int(until, 16) >= self._clock() else None

    def _proven(self, kind: str, text: str) -> str:
        body, _, shown = text.rpartition("~")
        right = self._mac(kind, body).encode()
        return body if hmac.compare_digest(shown.encode(), right) else ""

    def _mac(self, kind: str, body: str) -> str:
        # BLAKE2 as a MAC (RFC 7693, section 2.9): one is made for every poll, and HMAC by OpenSSL
        # was a tenth of an answer's time.
        digest = blake2s(f"{kind}:{body}".encode(), key=self._secret).digest()
        return urlsafe_b64encode(digest).decode().rstrip("=")


def same_key(bearer: Bearer, fingerprint: str | None) -> bool:
    """Says whether a token was given for the key that a board has now."""
    return fingerprint is not None and fingerprint[:_KEY_DIGITS] == bearer.key
