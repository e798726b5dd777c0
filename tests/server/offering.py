"""Targets that their keys signed, and what nobody should have let them say of a build."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timezone
from typing import Any

import httpx
from tuf.api.metadata import Metadata, Targets

from kedge_builder.publishing.rotation import next_of
from kedge_shared import signing
from tests.sim.world import World


def offer(world: World, device_class: str, custom: Mapping[str, Any]) -> httpx.Response:
    """Offers the server targets that say ``custom`` of release 1.0's build for a class."""
    standing = world.publisher("fresh").standing()
    following: Metadata[Targets] = next_of(standing, "targets", datetime.now(timezone.utc))
    path = f"models/shapes/1.0/{device_class}/manifest.json"
    following.signed.targets[path].unrecognized_fields["custom"] = dict(custom)
    following.sign(signing.load_private_key(world.trust.offline / "targets.key"))
    return world.operator.http.post(
        "/api/v1/repository/metadata", json={"targets": following.to_bytes().decode()}
    )
