"""What signed targets name beside a manifest: documents for people, which boards do not need.

A target's ``custom`` (TUF specification, section 4.5) names each by hash and length, so whoever
signs the targets vouches for its bytes: ``custom: {"report": {"sha256": …, "length": …}}``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

import msgspec
from msgspec import Meta

from kedge_shared.errors import InputError
from kedge_shared.ids import Sha256, sha256_hex

PROVENANCE, REPORT = "provenance", "report"
#: Name in ``custom`` → the most bytes of such a document.
LIMITS_BYTES: Mapping[str, int] = {
    # A calibration image takes about 200 bytes; 4,000 of them fit.
    PROVENANCE: 1024 * 1024,
    # A YOLOv8x has 500 layers, which take 100 kB.
    REPORT: 1024 * 1024,
}


class Listed(msgspec.Struct, frozen=True, kw_only=True):
    """What a target's ``custom`` says of a document.

    Attributes:
        sha256: Of its bytes.
        length: Bytes of it.
    """

    sha256: Sha256
    length: Annotated[int, Meta(ge=1)]


def listed_in(custom: object, name: str) -> Listed | None:
    """Returns the document of a name that a target's ``custom`` lists, or ``None``.

    Raises:
        InputError: It lists one and says it wrongly, or one that is too large.
    """
    if not isinstance(custom, dict) or name not in custom:
        return None
    try:
        found = msgspec.convert(custom[name], Listed)
    except msgspec.ValidationError as error:
        raise InputError(f"custom {name} cannot be read: {error}") from None
    if found.length > LIMITS_BYTES[name]:
        raise InputError(f"custom {name} is larger than {LIMITS_BYTES[name]} bytes")
    return found


def all_listed_in(custom: object) -> dict[str, Listed]:
    """Returns name → document of everything that a target's ``custom`` lists.

    Raises:
        InputError: As :func:`listed_in`.
    """
    found = {name: listed_in(custom, name) for name in LIMITS_BYTES}
    return {name: each for name, each in found.items() if each is not None}


def custom_of(documents: Mapping[str, bytes]) -> dict[str, dict[str, str | int]]:
    """Returns the ``custom`` that lists documents by name."""
    return {
        name: {"sha256": sha256_hex(data), "length": len(data)} for name, data in documents.items()
    }
