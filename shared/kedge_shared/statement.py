"""in-toto statements in DSSE envelopes: who says what of which files.

Specification: https://github.com/in-toto/attestation/tree/main/spec/v1. A statement names its
subjects by hash; its predicate says something of them. Kedge makes two kinds: where a build came
from (kedge_shared.provenance) and what a board runs (kedge_shared.attestation).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any, Generic, TypeVar

import msgspec
from msgspec import Meta
from securesystemslib.signer import Key

from kedge_shared import signing, wire
from kedge_shared.errors import InputError, TrustError
from kedge_shared.ids import Sha256

P = TypeVar("P")

STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
#: What any tool for in-toto takes.
IN_TOTO_TYPE = "application/vnd.in-toto+json"

Digest = Annotated[dict[str, Sha256], Meta(min_length=1, max_length=4)]


class Subject(msgspec.Struct, frozen=True, kw_only=True):
    """A file that a statement is about.

    Attributes:
        name: For people; the digest is what counts.
        digest: Algorithm → hexadecimal.
    """

    name: Annotated[str, Meta(max_length=300)]
    digest: Digest


class Statement(
    msgspec.Struct, Generic[P], frozen=True, kw_only=True,
    rename={"type": "_type", "predicate_type": "predicateType"},
):  # fmt: skip
    """An in-toto statement.

    Attributes:
        type: :data:`STATEMENT_TYPE`.
        subject: What it is about.
        predicate_type: What kind of thing it says.
        predicate: What it says.
    """

    type: str = STATEMENT_TYPE
    subject: Annotated[tuple[Subject, ...], Meta(min_length=1, max_length=64)]
    predicate_type: str
    predicate: P

    @property
    def digests(self) -> set[str]:
        """SHA-256 of every subject."""
        return {each.digest["sha256"] for each in self.subject if "sha256" in each.digest}


def subjects(files: Iterable[tuple[str, str]]) -> tuple[Subject, ...]:
    """Returns subjects of (name, SHA-256)."""
    return tuple(Subject(name=name, digest={"sha256": sha256}) for name, sha256 in files)


def unseal_statement(
    envelope: dict[str, Any], kind: str, predicate: type[P], predicate_type: str, key: Key,
    *, limit_bytes: int,
) -> Statement[P]:  # fmt: skip
    """Checks an envelope's signature, then that it holds the statement that was asked for.

    Raises:
        TrustError: As :func:`kedge_shared.signing.unseal`, or it says another kind of thing
            (``predicate``).
    """
    found: Statement[P] = signing.unseal(
        envelope, kind, Statement[predicate], key, limit_bytes=limit_bytes  # type: ignore[valid-type]
    )  # fmt: skip
    _check_kind(found.type, found.predicate_type, predicate_type)
    return found


def peek_statement(
    envelope: dict[str, Any], predicate: type[P], predicate_type: str
) -> Statement[P]:
    """Decodes a statement **without** checking who signed it.

    Raises:
        TrustError: Malformed, or it says another kind of thing (``predicate``).
    """
    found: Statement[P] = signing.peek(envelope, Statement[predicate])  # type: ignore[valid-type]
    _check_kind(found.type, found.predicate_type, predicate_type)
    return found


def _check_kind(kind: str, predicate_type: str, wanted: str) -> None:
    if kind != STATEMENT_TYPE or predicate_type != wanted:
        raise TrustError("predicate", f"statement of {predicate_type!r}, not of {wanted}")


def read_envelope(data: bytes, what: str) -> dict[str, Any]:
    """Decodes a file that holds one envelope; nothing of it is checked.

    Raises:
        InputError: It is no JSON object.
    """
    found = wire.decode(data, dict[str, Any], what)
    if "payload" not in found:
        raise InputError(f"{what} is no signed message")
    return found
