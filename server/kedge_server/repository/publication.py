"""May this metadata follow that? Pure: bytes in, verified metadata or an error out.

The server holds no key of root, targets or a model; it only makes sure that what it hands to boards
is what boards will accept (specification, section 5), so that a slip breaks nobody's fleet.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from tuf.api.exceptions import RepositoryError
from tuf.api.metadata import DelegatedRole, Metadata, Root, TargetFile, Targets

from kedge_server.errors import RequestError, StaleError
from kedge_shared.trust import MODEL_ROLE_PREFIX

TOP_ROLES = ("root", "targets", "snapshot", "timestamp")
_ROOT = re.compile(r"([1-9][0-9]{0,8})[.]root")


@dataclass(frozen=True)
class Offline:
    """Newest metadata of the roles whose keys the server does not hold.

    Attributes:
        root: Root.
        targets: Top-level targets.
        models: Role → what a model's team signed.
    """

    root: Metadata[Root]
    targets: Metadata[Targets]
    models: dict[str, Metadata[Targets]]

    @property
    def delegated(self) -> dict[str, DelegatedRole]:
        """What targets delegate; a role that was delegated once keeps its metadata, unlisted."""
        delegations = self.targets.signed.delegations
        return dict(delegations.roles or {}) if delegations else {}

    @property
    def listed(self) -> dict[str, TargetFile]:
        """Every target, as clients find it: what top-level targets list comes first."""
        found: dict[str, TargetFile] = {}
        for role in self.models.keys() & self.delegated.keys():
            found |= self.models[role].signed.targets
        return found | self.targets.signed.targets


def follow(
    before: Offline, offered: Mapping[str, bytes], online: Mapping[str, set[str]], now: datetime
) -> Offline:
    """Returns what stands after a publication, every signature checked.

    Args:
        before: What stands now.
        offered: Role → new metadata; several roots at once are ``N.root``.
        online: Online role → ids of the keys that the server can sign it with.
        now: Expiry is held against it.

    Raises:
        StaleError: Somebody published one of the roles in between.
        RequestError: Not signed as its delegator demands, expired, a root that is not the next,
            of no role, lists what its role may not, or leaves another role without valid
            signatures.
    """
    root, targets, models = before.root, before.targets, dict(before.models)
    for name in sorted(offered, key=_order):
        role, body = role_of(name), offered[name]
        if role == "root":
            root = _next_root(root, body)
        elif role == "targets":
            targets = _read(role, body, Targets)
            _check_next(role, targets, before.targets.signed.version, now)
        elif role.startswith(MODEL_ROLE_PREFIX):
            models[role] = _read(role, body, Targets)
            known = before.models.get(role)
            _check_next(role, models[role], known.signed.version if known else 0, now)
        else:
            raise RequestError(f"{role} is no role that is published")
    after = Offline(root, targets, models)
    if root is not before.root:
        _check_last_root(root, online, now)
    for role in models.keys() & offered.keys() - after.delegated.keys():
        raise RequestError(f"{role} is not delegated", "`kedge keys delegate` comes first")
    _check_signatures(after)
    return after


def _read(role: str, body: bytes, kind: type) -> Metadata:  # type: ignore[type-arg]
    try:
        found = Metadata.from_bytes(body)
    except (RepositoryError, ValueError) as error:
        raise RequestError(f"{role} metadata cannot be read: {error}") from None
    if not isinstance(found.signed, kind):
        raise RequestError(f"{role} metadata is of type {found.signed.type}")
    return found


def role_of(name: str) -> str:
    """Returns the role of what is offered: ``3.root`` is root's."""
    return "root" if _ROOT.fullmatch(name) else name


def _order(name: str) -> tuple[int, str]:
    found = _ROOT.fullmatch(name)
    return (int(found[1]) if found else 0, name)


def _next_root(before: Metadata[Root], body: bytes) -> Metadata[Root]:
    after: Metadata[Root] = _read("root", body, Root)
    if after.signed.version <= before.signed.version:
        raise StaleError(f"root is at version {before.signed.version}", "fetch it and sign again")
    if after.signed.version != before.signed.version + 1:
        raise RequestError(f"root must have version {before.signed.version + 1}")
    _verify(before.signed, "root", after, "the root before it demands")
    _verify(after.signed, "root", after, "it demands itself")
    return after


def _check_last_root(root: Metadata[Root], online: Mapping[str, set[str]], now: datetime) -> None:
    """One on the way may be expired and name keys that are gone; the last one is lived by."""
    if root.signed.is_expired(now) or not root.signed.consistent_snapshot:
        raise RequestError("root is expired or without consistent snapshots")
    for role, held in online.items():
        named = root.signed.roles[role]
        if len(held & set(named.keyids)) < named.threshold:
            raise RequestError(
                f"root names {role} keys that this server does not hold",
                "copy the new key into its online folder and restart it, then push again",
            )


def _check_next(role: str, offered: Metadata[Targets], current: int, now: datetime) -> None:
    if offered.signed.version <= current:
        raise StaleError(f"{role} is at version {current}", "publish again")
    if offered.signed.is_expired(now):
        raise RequestError(f"{role} metadata is expired")


def _check_signatures(after: Offline) -> None:
    _verify(after.root.signed, "targets", after.targets, "root demands")
    for role in after.models.keys() & after.delegated.keys():
        metadata = after.models[role]
        _verify(after.targets.signed, role, metadata, "targets demand")
        for path in metadata.signed.targets:
            if not after.delegated[role].is_delegated_path(path):
                raise RequestError(f"{role} may not list {path}")
        if metadata.signed.delegations is not None:
            raise RequestError(f"{role} may not delegate")


def _verify(
    delegator: Root | Targets, role: str, metadata: Metadata, how: str  # type: ignore[type-arg]
) -> None:  # fmt: skip
    try:
        delegator.verify_delegate(role, metadata.signed_bytes, metadata.signatures)
    except (RepositoryError, ValueError) as error:
        raise RequestError(f"{role} metadata is not signed as {how}: {error}") from None
