"""Where a build came from: SLSA provenance v1 as an in-toto statement about the build's files.

Specification: https://slsa.dev/spec/v1.0/provenance. ``kedge build`` makes the statement,
``kedge publish`` signs it with the key that lists the release, and the signed targets name it by
hash beside the manifest (:mod:`kedge_shared.attachments`). Boards need none of it;
it is for whoever asks what a running engine was made from.
"""

from __future__ import annotations

from typing import Any

import msgspec

from kedge_shared.attachments import LIMITS_BYTES, PROVENANCE
from kedge_shared.errors import TrustError
from kedge_shared.statement import Digest, Statement, peek_statement

PROVENANCE_PREDICATE = "https://slsa.dev/provenance/v1"
BUILD_TYPE = "urn:kedge:build:v1"
BUILDER_ID = "urn:kedge:builder"
PROVENANCE_LIMIT_BYTES = LIMITS_BYTES[PROVENANCE]


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


def peek_provenance(envelope: dict[str, Any], manifest_sha256: str) -> Statement[Slsa]:
    """Returns what an envelope says of a build's origin, **whoever** signed it.

    Raises:
        TrustError: It is no provenance, or of another build (``mix``).
    """
    said = peek_statement(envelope, Slsa, PROVENANCE_PREDICATE)
    if manifest_sha256 not in said.digests:
        raise TrustError("mix", "the provenance is of another build")
    return said
