"""Names: what may be written as one, and how fresh ones are made."""

from __future__ import annotations

import hashlib
import re
import secrets
from typing import Annotated

from msgspec import Meta

from kedge_shared.errors import InputError

#: One path segment: safe in URLs, TUF target paths, file names and logs. What ``$``
#: ends may have a line break after it, what ``\Z`` ends may not.
NAME_PATTERN = r"^[a-z0-9][a-z0-9._-]{0,63}\Z"
SHA256_PATTERN = r"^[0-9a-f]{64}\Z"

Name = Annotated[str, Meta(pattern=NAME_PATTERN)]
Sha256 = Annotated[str, Meta(pattern=SHA256_PATTERN)]
Count = Annotated[int, Meta(ge=0)]
#: Milliseconds, always positive.
Millis = Annotated[float, Meta(gt=0)]
#: A share or probability.
Share = Annotated[float, Meta(ge=0, le=1)]

_NAME = re.compile(NAME_PATTERN)


def check_name(kind: str, value: str) -> str:
    """Returns ``value`` if it may name a ``kind``.

    Raises:
        InputError: It holds something else than ``a-z 0-9 . _ -``, or is longer than 64.
    """
    if not _NAME.match(value) or ".." in value:
        raise InputError(
            f"{value!r} cannot name a {kind}",
            "use lower-case letters, digits, '.', '_' or '-', 64 at most",
        )
    return value


def fresh_id(prefix: str) -> str:
    """Returns a new unguessable identifier such as ``"ro-3f9a…"`` (64 bits)."""
    return f"{prefix}-{secrets.token_hex(8)}"


def sha256_hex(data: bytes | memoryview) -> str:
    """Returns the lower-case hexadecimal SHA-256 of ``data``."""
    return hashlib.sha256(data).hexdigest()
