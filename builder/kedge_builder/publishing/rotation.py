"""Who may sign what, changed: keys added and taken away, models delegated. Pure but for signing.

The result is the metadata that must be offered together: whoever is named anew signs again what
the old keys had signed, so that at no moment a client finds a role that its delegator disowns.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from typing import Any

from securesystemslib.signer import Key
from tuf.api.metadata import (
    DelegatedRole,
    Delegations,
    Metadata,
    Role,
    Root,
    TargetFile,
    Targets,
)

from kedge_builder.publishing.keyring import Keyring
from kedge_builder.publishing.keys import ROOT_DAYS, TARGETS_DAYS
from kedge_shared.errors import InputError
from kedge_shared.trust import model_paths, model_role

TOP_ROLES = ("root", "targets", "snapshot", "timestamp")


@dataclass(frozen=True)
class Standing:
    """Verified newest metadata of the offline roles.

    Attributes:
        root: Root.
        targets: Top-level targets.
        models: Role → what a model's team signed.
    """

    root: Metadata[Root]
    targets: Metadata[Targets]
    models: Mapping[str, Metadata[Targets]]

    def role(self, name: str) -> Role | DelegatedRole:
        """Returns who signs ``name``.

        Raises:
            InputError: There is no such role.
        """
        found: Role | DelegatedRole | None = self.root.signed.roles.get(name)
        if found is None:
            found = delegated(self.targets).get(name)
        if found is None:
            raise InputError(f"there is no role {name}", "`kedge keys list` shows them")
        return found

    @property
    def roles(self) -> list[str]:
        """Every role, top-level ones first."""
        return [*TOP_ROLES, *sorted(delegated(self.targets))]


@dataclass(frozen=True)
class Change:
    """What is to become of a role's keys.

    Attributes:
        role: Root's, targets', an online one, or a model's.
        add: Public keys.
        remove: Ids of keys.
        threshold: How many of them must sign; ``None`` leaves it.
    """

    role: str
    add: Sequence[Key] = ()
    remove: Sequence[str] = ()
    threshold: int | None = None
    now: datetime = field(default_factory=lambda: datetime.now(timezone.utc))


def delegated(targets: Metadata[Targets]) -> dict[str, DelegatedRole]:
    """Returns what targets delegate."""
    found = targets.signed.delegations
    return dict(found.roles or {}) if found else {}


def change(standing: Standing, what: Change, ring: Keyring) -> dict[str, bytes]:
    """Returns the metadata that carries out a change, signed.

    Raises:
        InputError: There is no such role or key, too few keys would be left, or too few of the
            keys that must sign are at hand.
    """
    standing.role(what.role)
    if what.role in TOP_ROLES:
        root = _next(standing.root, what.now, ROOT_DAYS)
        _edit(root.signed, what)
        ring.sign(root, "root", standing.root.signed.roles["root"], root.signed.roles["root"])
        signed = {"root": root.to_bytes()}
        if what.role == "targets":
            targets = _next(standing.targets, what.now, TARGETS_DAYS)
            ring.sign(targets, "targets", root.signed.roles["targets"])
            signed["targets"] = targets.to_bytes()
        return signed
    targets = _next(standing.targets, what.now, TARGETS_DAYS)
    _edit(targets.signed, what)
    ring.sign(targets, "targets", standing.role("targets"))
    signed = {"targets": targets.to_bytes()}
    if what.role in standing.models:
        model = _next(standing.models[what.role], what.now, TARGETS_DAYS)
        ring.sign(model, what.role, delegated(targets)[what.role])
        signed[what.role] = model.to_bytes()
    return signed


def delegate(
    standing: Standing, model: str, key: Key, ring: Keyring, now: datetime | None = None
) -> dict[str, bytes]:
    """Returns the metadata that gives a model to the team that holds ``key``.

    What is listed of the model moves to its role when the key is at hand; else it stays where it
    is, and the team takes it over with its first publication.

    Raises:
        InputError: It is delegated already, or too few of the targets keys are at hand.
    """
    name, now = model_role(model), now or datetime.now(timezone.utc)
    if name in delegated(standing.targets):
        raise InputError(f"model {model} is delegated already", f"`kedge keys rotate {name}`")
    targets = _next(standing.targets, now, TARGETS_DAYS)
    signed = targets.signed
    role = DelegatedRole(name, [], 1, terminating=True, paths=model_paths(model))
    known = signed.delegations or Delegations({}, {})
    signed.delegations = Delegations(known.keys, {**(known.roles or {}), name: role})
    signed.add_key(key, name)
    offered: dict[str, bytes] = {}
    if key.keyid in ring:
        following = next_of(standing, name, now)
        following.signed.targets = {
            path: info for path, info in signed.targets.items() if role.is_delegated_path(path)
        }
        signed.targets = {
            path: info for path, info in signed.targets.items() if not role.is_delegated_path(path)
        }
        ring.sign(following, name, signed.delegations.roles[name])
        offered[name] = following.to_bytes()
    ring.sign(targets, "targets", standing.role("targets"))
    return {"targets": targets.to_bytes(), **offered}


def lists(standing: Standing, model: str, release: str) -> bool:
    """Says whether a release is listed."""
    prefix = f"models/{model}/{release}/"
    every = (standing.targets, *standing.models.values())
    return any(path.startswith(prefix) for each in every for path in each.signed.targets)


def take_back(
    standing: Standing,
    model: str,
    release: str,
    ring: Keyring,
    added: Mapping[str, bytes] | None = None,
) -> dict[str, bytes]:
    """Returns the metadata that lists a release no more.

    Args:
        standing: What stands now.
        model: Model.
        release: Release.
        ring: Keys at hand.
        added: Target path → bytes of what is listed instead: a policy.

    Raises:
        InputError: It is not listed, or too few of the keys that list it are at hand.
    """
    now, prefix = datetime.now(timezone.utc), f"models/{model}/{release}/"
    offered: dict[str, bytes] = {}
    for name, metadata in {"targets": standing.targets, **standing.models}.items():
        if not any(path.startswith(prefix) for path in metadata.signed.targets):
            continue
        following = _next(metadata, now, TARGETS_DAYS)
        following.signed.targets = {
            path: info for path, info in metadata.signed.targets.items()
            if not path.startswith(prefix)
        }  # fmt: skip
        add_targets(following, added or {})
        ring.sign(following, name, standing.role(name))
        offered[name] = following.to_bytes()
    if not offered:
        raise InputError(f"{model} {release} is not listed", "`kedge release list`")
    return offered


def next_of(standing: Standing, role: str, now: datetime) -> Metadata[Targets]:
    """Returns what a role signs next: targets, or a model's, whose first it may be."""
    known = standing.targets if role == "targets" else standing.models.get(role)
    if known is not None:
        return _next(known, now, TARGETS_DAYS)
    return Metadata(Targets(version=1, expires=_until(now, TARGETS_DAYS)))


def add_targets(
    metadata: Metadata[Targets],
    added: Mapping[str, bytes],
    custom: Mapping[str, Mapping[str, Any]] | None = None,
) -> None:
    """Lists targets, in place.

    Args:
        metadata: Changed.
        added: Target path → bytes.
        custom: Target path → what else is signed of it (specification, section 4.5).

    Raises:
        InputError: A manifest would replace another one at its path: releases are immutable.
    """
    for path, data in added.items():
        target = TargetFile.from_data(path, data, ["sha256"])
        known = metadata.signed.targets.get(path)
        if known is not None and known.hashes != target.hashes and path.endswith("manifest.json"):
            raise InputError(
                f"{path} is published with other contents", "give the release a new version"
            )
        said = dict((custom or {}).get(path, {}))
        if known is not None and known.hashes == target.hashes:
            # What was signed of it once stays: a token's signature is another each time.
            said |= known.custom or {}
        if said:
            target.unrecognized_fields["custom"] = said
        metadata.signed.targets[path] = target


def _edit(signed: Root | Targets, what: Change) -> None:
    """Adds and removes keys of a role."""
    for key in what.add:
        signed.add_key(key, what.role)
    for keyid in what.remove:
        try:
            signed.revoke_key(keyid, what.role)
        except ValueError:
            raise InputError(f"{what.role} has no key {keyid[:12]}", "`kedge keys list`") from None
    role: Any = (
        signed.roles[what.role] if isinstance(signed, Root)
        else (signed.delegations.roles or {})[what.role]  # type: ignore[union-attr]
    )  # fmt: skip
    role.threshold = what.threshold or role.threshold
    if not 1 <= role.threshold <= len(role.keyids):
        raise InputError(
            f"{what.role} would have {len(role.keyids)} key(s) and need {role.threshold}",
            "add a key first, or name a --threshold",
        )


def _next(metadata: Metadata[Any], now: datetime, days: int) -> Metadata[Any]:
    following = copy.deepcopy(metadata)
    following.signed.version += 1
    following.signed.expires = _until(now, days)
    return following


def _until(now: datetime, days: int) -> datetime:
    return now.replace(microsecond=0) + timedelta(days=days)
