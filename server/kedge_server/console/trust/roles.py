"""Every role: its keys, how many must sign, until when it holds, what to do. Pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from securesystemslib.signer import Key
from tuf.api.metadata import Metadata, Root, Targets

from kedge_server.repository.publication import Offline
from kedge_shared.trust import DirectorKey

_DAY = 86400.0
#: People sign these, and need time: as `kedge server check` says it.
_OFFLINE_SOON = 30 * _DAY
_DUTIES = {
    "root": "names the keys of every role; boards are pinned to it",
    "targets": "lists releases and policies, or lets a model's team do so",
    "snapshot": "says which metadata belong together; the server signs it",
    "timestamp": "says what is newest; the server signs it",
    "director": "tells each board what it shall run; the server signs it",
}


@dataclass(frozen=True)
class KeyView:
    """A key.

    Attributes:
        id: Its id.
        scheme: How it signs.
        here: This server holds it.
    """

    id: str
    scheme: str
    here: bool


@dataclass(frozen=True)
class RoleView:
    """A role.

    Attributes:
        name: It.
        duty: What it is for.
        keys: That may sign.
        threshold: So many must.
        version: Of its newest metadata; of the director its epoch.
        expires: Unix seconds; ``None`` if it does not by itself.
        left: Seconds until then, below zero once it is past.
        state: ok, soon, or expired.
        online: The server signs it by itself.
        mend: The command that gives it a fresh key and signs it anew.
    """

    name: str
    duty: str
    keys: tuple[KeyView, ...]
    threshold: int
    version: int
    expires: float | None
    left: float | None
    state: str
    online: bool
    mend: str


@dataclass(frozen=True)
class Standing:
    """What stands now.

    Attributes:
        offline: Root, targets and the models' metadata.
        online: Role → its newest metadata.
        lives: Online role → how long it holds from signing, seconds.
        director: The key that may assign; ``None`` if targets name none that can be read.
        held: Ids of the keys that this server holds.
    """

    offline: Offline
    online: Mapping[str, Metadata[Any]]
    lives: Mapping[str, float]
    director: DirectorKey | None
    held: Collection[str]


def views(found: Standing, now: float) -> list[RoleView]:
    """Returns every role, in order of trust."""
    offline = found.offline
    root = offline.root.signed
    said = [
        _view(found, root, "root", offline.root, now),
        _view(found, root, "targets", offline.targets, now),
    ]
    for role in sorted(offline.delegated):
        said.append(_view(found, offline.targets.signed, role, offline.models.get(role), now))
    said += [_view(found, root, role, each, now) for role, each in found.online.items()]
    if found.director is not None:
        said.append(_director(found, found.director))
    return said


def _view(
    found: Standing, delegator: Root | Targets, role: str, metadata: Metadata[Any] | None,
    now: float,
) -> RoleView:  # fmt: skip
    named = delegator.get_delegated_role(role)
    keys = tuple(_key(delegator.get_key(each), found.held) for each in named.keyids)
    expires = metadata.signed.expires.timestamp() if metadata else None
    left = None if expires is None else expires - now
    model = role.removeprefix("model-")
    duty = _DUTIES.get(role, f"lists {model}'s releases and policy, and nothing else")
    state = state_of(left, found.lives.get(role))
    return RoleView(
        name=role, duty=duty, keys=keys, threshold=named.threshold, expires=expires, left=left,
        version=metadata.signed.version if metadata else 0, state=state,
        online=role in found.lives, mend=f"kedge keys rotate {role}",
    )  # fmt: skip


def _director(found: Standing, key: DirectorKey) -> RoleView:
    keyid, scheme = str(key.key.get("keyid", "")), str(key.key.get("scheme", ""))
    return RoleView(
        name="director", duty=_DUTIES["director"], threshold=1, version=key.epoch, expires=None,
        left=None, state="ok", online=True, mend="kedge keys rotate director",
        keys=(KeyView(keyid, scheme, keyid in found.held),),
    )  # fmt: skip


def _key(key: Key, held: Collection[str]) -> KeyView:
    return KeyView(key.keyid, key.scheme, key.keyid in held)


def state_of(left: float | None, life: float | None) -> str:
    """Says whether a role holds: ok, soon, or expired.

    Args:
        left: Seconds; ``None`` if nothing was signed yet.
        life: How long it holds from signing, of one that the server signs anew at half of it.
    """
    if left is None:
        return "ok"
    if left <= 0:
        return "expired"
    return "soon" if left < (life / 4 if life else _OFFLINE_SOON) else "ok"
