"""The image repository's roles, read from its metadata without checking it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from kedge_shared.errors import ServiceError

if TYPE_CHECKING:
    from kedge_shared.client import Client

_METADATA_LIMIT_BYTES = 5_000_000


@dataclass(frozen=True)
class RoleView:
    """Who signs for a role.

    Attributes:
        role: root, targets, snapshot, timestamp, or a model's.
        version: Of its newest metadata.
        expires: As the metadata says it.
        threshold: So many of the keys must sign.
        keys: Their ids.
    """

    role: str
    version: int
    expires: str
    threshold: int
    keys: tuple[str, ...]


def roles(client: Client) -> list[RoleView]:
    """Returns every role, in order of trust.

    Raises:
        ServiceError: The server does not answer, or sends what is no metadata.
    """
    try:
        return list(_roles(client))
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        said = f"server {client.server} sends metadata that cannot be read"
        raise ServiceError(f"{said} ({type(error).__name__})") from None


def _roles(client: Client) -> Iterator[RoleView]:
    def fetch(name: str) -> Mapping[str, Any]:
        data = client.read(f"/tuf/metadata/{name}", _METADATA_LIMIT_BYTES)
        signed: Mapping[str, Any] = json.loads(data)["signed"]
        return signed

    root = fetch(f"{client.repository().root}.root.json")
    timestamp = fetch("timestamp.json")
    snapshot = fetch(f"{timestamp['meta']['snapshot.json']['version']}.snapshot.json")
    of = snapshot["meta"]
    targets = fetch(f"{of['targets.json']['version']}.targets.json")
    told = {"root": root, "targets": targets, "snapshot": snapshot, "timestamp": timestamp}
    for name, signed in told.items():
        yield _view(name, signed, root["roles"][name])
    for each in targets.get("delegations", {}).get("roles", ()):
        name = each["name"]
        if f"{name}.json" in of:
            yield _view(name, fetch(f"{of[f'{name}.json']['version']}.{name}.json"), each)


def _view(name: str, signed: Mapping[str, Any], role: Mapping[str, Any]) -> RoleView:
    return RoleView(
        name, signed["version"], signed["expires"], role["threshold"], tuple(role["keyids"])
    )
