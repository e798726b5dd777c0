"""How a board comes by its access token: it signs a nonce of the server's.

The board's clock plays no part: the server made the nonce and knows how old it is, and the token's
life is told as a span.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

from msgspec import Meta

from kedge_shared.ids import Name

ACCESS_TYPE = "application/vnd.kedge.access+json"
KEY_CHANGE_TYPE = "application/vnd.kedge.key-change+json"
ACCESS_LIMIT_BYTES = 4096

NonceText = Annotated[str, Meta(min_length=1, max_length=200)]


@dataclass(frozen=True, kw_only=True)
class Nonce:
    """For one signed request.

    Attributes:
        nonce: Goes into it.
        seconds: How long it is taken.
    """

    nonce: NonceText
    seconds: float


@dataclass(frozen=True, kw_only=True)
class AccessRequest:
    """Asks for an access token; signed with the board's key.

    Attributes:
        device: Who.
        nonce: Of the server, once.
        run: Names the start of the program that asks. One that comes back after a later one is
            another board's with the same key.
        program: Which of the board's programs; each has its own runs.
    """

    device: Name
    nonce: NonceText
    run: Annotated[str, Meta(min_length=1, max_length=64)]
    program: Name = "updater"


@dataclass(frozen=True, kw_only=True)
class AccessToken:
    """The answer.

    Attributes:
        token: Bearer token for polls, downloads and reports.
        seconds: How long it holds from now on.
    """

    token: str
    seconds: Annotated[float, Meta(gt=0)]


@dataclass(frozen=True, kw_only=True)
class KeyChange:
    """Puts another key in the place of a board's; signed with the old one and with the new one.

    Attributes:
        device: Whose.
        nonce: Of the server, once.
        public_key: The new key, as in an enrolment.
    """

    device: Name
    nonce: NonceText
    public_key: dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class KeyChanged:
    """The answer.

    Attributes:
        device: Whose.
        fingerprint: Of the key that counts from now on.
    """

    device: Name
    fingerprint: str
