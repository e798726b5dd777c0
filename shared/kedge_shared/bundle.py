"""A release on a stick: what a server would answer, as files, for boards without network.

A bundle is a folder, or a plain tar of one, never compressed: what a board reads is what lies
there. Nothing in it is trusted for being in it: a board asks it as it asks a server and checks the
same signatures. ``bundle.json`` is a table of contents, no more.

    bundle.json
    metadata/2.root.json, timestamp.json, 9.snapshot.json, …   as the image repository names them
    artifacts/<sha256>                                         manifests, policy, engines, frames
    assignments/<device>.json                                  signed by the director, if any
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Annotated

from msgspec import Meta

from kedge_shared.ids import Name
from kedge_shared.protocol import ManifestRef, Unix

TABLE = "bundle.json"
TABLE_LIMIT_BYTES = 256 * 1024
#: Files of one bundle; a release has some dozens for each device class.
FILES_LIMIT = 4096
METADATA = re.compile(r"^metadata/[A-Za-z0-9][A-Za-z0-9._-]{0,120}\.json$")
ARTIFACT = re.compile(r"^artifacts/[0-9a-f]{64}$")
ASSIGNMENT = re.compile(r"^assignments/[a-z0-9][a-z0-9._-]{0,63}\.json$")


@dataclass(frozen=True, kw_only=True)
class BundledBuild:
    """One build.

    Attributes:
        device_class: What it is for.
        manifest: The TUF target.
    """

    device_class: Name
    manifest: ManifestRef


@dataclass(frozen=True, kw_only=True)
class Bundle:
    """Table of contents.

    Attributes:
        schema: Version of this structure.
        model: Model.
        release: Its release.
        made: Unix seconds.
        builds: A build per device class.
        devices: Those for which there is an assignment.
    """

    schema: Annotated[int, Meta(ge=1, le=1)]
    model: Name
    release: Name
    made: Unix
    builds: Annotated[tuple[BundledBuild, ...], Meta(min_length=1, max_length=256)]
    devices: tuple[Name, ...] = ()


def is_member(name: str) -> bool:
    """Says whether a bundle may hold a file of this name."""
    return name == TABLE or any(
        pattern.fullmatch(name) for pattern in (METADATA, ARTIFACT, ASSIGNMENT)
    )
