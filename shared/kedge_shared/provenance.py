"""Where a build came from: SLSA provenance v1 as an in-toto statement about the build's files.

Specification: https://slsa.dev/spec/v1.0/provenance. ``kedge build`` makes the statement,
``kedge publish`` signs it with the key that lists the release, and the signed targets name it by
hash beside the manifest: ``custom: {"provenance": {"sha256", "length"}}``. Boards need none of it;
it is for whoever asks what a running engine was made from.
"""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from msgspec import Meta

from kedge_shared.errors import InputError, TrustError
from kedge_shared.ids import Sha256
from kedge_shared.statement import Digest, Statement, peek_statement

PROVENANCE_PREDICATE = "https://slsa.dev/provenance/v1"
BUILD_TYPE = "urn:kedge:build:v1"
BUILDER_ID = "urn:kedge:builder"
#: A calibration image takes about 200 bytes; 4,000 of them fit.
PROVENANCE_LIMIT_BYTES = 1024 * 1024
#: Key in a target's ``custom``.
CUSTOM = "provenance"


class Resource(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Something that the build read.

    Attributes:
        name: For people.
        digest: Algorithm → hexadecimal.
        annotations: What the digest is of, where it is not of a file's bytes.
    """

    name: str
    digest: Digest
    annotations: dict[str, str] = {}


class BuildDefinition(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """What was asked for.

    Attributes:
        build_type: :data:`BUILD_TYPE`.
        external_parameters: Options of the build and what it is for.
        resolved_dependencies: Weights, data, calibration images.
    """

    build_type: str
    external_parameters: dict[str, Any]
    resolved_dependencies: tuple[Resource, ...]


class BuilderInfo(msgspec.Struct, frozen=True, kw_only=True):
    """Who built.

    Attributes:
        id: :data:`BUILDER_ID`; which machine it was is not claimed.
        version: Tool → version.
    """

    id: str
    version: dict[str, str]


class RunDetails(msgspec.Struct, frozen=True, kw_only=True):
    """How it was carried out."""

    builder: BuilderInfo


class Slsa(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """SLSA provenance v1, as far as Kedge states it."""

    build_definition: BuildDefinition
    run_details: RunDetails


class Listed(msgspec.Struct, frozen=True, kw_only=True):
    """What a target's ``custom`` says of the provenance.

    Attributes:
        sha256: Of the envelope.
        length: Bytes of it.
    """

    sha256: Sha256
    length: Annotated[int, Meta(ge=1, le=PROVENANCE_LIMIT_BYTES)]


def listed_in(custom: object) -> Listed | None:
    """Returns the provenance that a target's ``custom`` names, or ``None`` if it names none.

    Raises:
        InputError: It names one and says it wrongly.
    """
    if not isinstance(custom, dict) or CUSTOM not in custom:
        return None
    try:
        return msgspec.convert(custom[CUSTOM], Listed)
    except msgspec.ValidationError as error:
        raise InputError(f"custom {CUSTOM} cannot be read: {error}") from None


def peek_provenance(envelope: dict[str, Any], manifest_sha256: str) -> Statement[Slsa]:
    """Returns what an envelope says of a build's origin, **whoever** signed it.

    Raises:
        TrustError: It is no provenance, or of another build (``mix``).
    """
    said = peek_statement(envelope, Slsa, PROVENANCE_PREDICATE)
    if manifest_sha256 not in said.digests:
        raise TrustError("mix", "the provenance is of another build")
    return said
