"""Passwords: Argon2id with argon2-cffi's defaults (RFC 9106, low-memory)."""

from __future__ import annotations

import threading
from functools import lru_cache

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from kedge_server.errors import BusyError

#: A hash takes 64 MiB and a tenth of a second: many at once would be an attack of their own.
_AT_ONCE = threading.BoundedSemaphore(2)
_WAIT_SECONDS = 1.0
_hasher = PasswordHasher()


def hashed(password: str) -> str:
    """Returns how a password is stored."""
    with _turn():
        return _hasher.hash(password)


def fits(password: str, stored: str) -> bool:
    """Says whether a password is the stored one; takes as long where there is none.

    Raises:
        BusyError: Too many are asked about at once.
    """
    with _turn():
        try:
            return _hasher.verify(stored or _nobodys(), password) and bool(stored)
        except (VerificationError, InvalidHashError):
            return False


@lru_cache(maxsize=1)
def _nobodys() -> str:
    return _hasher.hash("nobody's password")


class _turn:
    def __enter__(self) -> None:
        if not _AT_ONCE.acquire(timeout=_WAIT_SECONDS):
            raise BusyError("too many log in at once", retry_after=_WAIT_SECONDS)

    def __exit__(self, *_: object) -> None:
        _AT_ONCE.release()
