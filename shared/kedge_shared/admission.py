"""Ways into the fleet without a token: approval by a person, or a key that the factory announced.

A fingerprint is the key's ``keyid``: SHA-256 over the public key in canonical JSON, as TUF has it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from msgspec import Meta

from kedge_shared.ids import Name, Sha256
from kedge_shared.protocol import DeviceFacts


@dataclass(frozen=True, kw_only=True)
class Waiting:
    """The server's answer (202) to a board that asks without a token.

    Attributes:
        fingerprint: Of its key; a person compares it with what the board shows.
        ask_again_seconds: When to ask again.
    """

    fingerprint: Sha256
    ask_again_seconds: Annotated[float, Meta(gt=0)]


@dataclass(frozen=True, kw_only=True)
class PendingDevice:
    """A board that asked to be one of the fleet.

    Attributes:
        fingerprint: Of its key.
        name: What it calls itself.
        device_class: What it says it is.
        tags: What it says of itself; nobody has checked that.
        facts: The same.
        address: From where it asked last.
        first_asked: Unix seconds.
        last_asked: Unix seconds.
        state: ``waiting``, or ``rejected`` until it is forgotten.
    """

    fingerprint: Sha256
    name: Name
    device_class: Name
    tags: dict[str, str]
    facts: DeviceFacts
    address: str
    first_asked: float
    last_asked: float
    state: Literal["waiting", "rejected"]


@dataclass(frozen=True, kw_only=True)
class AnnouncedKeys:
    """Keys whose boards are taken in without being asked about.

    Attributes:
        fingerprints: Of the factory's list.
        note: Where they come from.
    """

    fingerprints: Annotated[tuple[Sha256, ...], Meta(min_length=1, max_length=900)]
    note: Annotated[str, Meta(max_length=200)] = ""


@dataclass(frozen=True, kw_only=True)
class AnnouncedKey:
    """One of them.

    Attributes:
        fingerprint: Of the key.
        note: Where it comes from.
        added: Unix seconds.
        added_by: Who announced it.
        device: The board that came with it; empty until one did.
    """

    fingerprint: Sha256
    note: str
    added: float
    added_by: str
    device: str
