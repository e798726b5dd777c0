"""Who signed a build: the role that lists it, its keys, and the provenance that it names."""

from __future__ import annotations

from dataclasses import dataclass

from securesystemslib.signer import Key
from tuf.api.metadata import Metadata, Root, TargetFile, Targets

from kedge_server.artifacts.store import Store
from kedge_server.console.models.builds import Build
from kedge_server.repository.publication import Offline
from kedge_shared.attachments import PROVENANCE, listed_in
from kedge_shared.errors import KedgeError
from kedge_shared.origin import Known, Origin, judge
from kedge_shared.provenance import PROVENANCE_LIMIT_BYTES
from kedge_shared.trust import model_role

#: Base64 makes three bytes four; signatures come on top.
_ENVELOPE_LIMIT_BYTES = PROVENANCE_LIMIT_BYTES * 2


@dataclass(frozen=True)
class Signed:
    """The role that lists builds of a model.

    Attributes:
        role: Its name.
        version: Of its metadata.
        expires: Unix seconds.
        threshold: So many of its keys must sign.
        by: Ids of the keys that did, checked now.
        not_by: Ids of its other keys.
    """

    role: str
    version: int
    expires: float
    threshold: int
    by: tuple[str, ...]
    not_by: tuple[str, ...]

    @property
    def holds(self) -> bool:
        """So many signed as must."""
        return len(self.by) >= self.threshold


def target_of(offline: Offline, path: str) -> tuple[str, TargetFile | None]:
    """Returns the role that lists a path, and what it lists; top-level targets come first."""
    if path in offline.targets.signed.targets:
        return "targets", offline.targets.signed.targets[path]
    for role in offline.models.keys() & offline.delegated.keys():
        if path in offline.models[role].signed.targets:
            return role, offline.models[role].signed.targets[path]
    return "", None


def signed(offline: Offline, role: str) -> Signed:
    """Checks who signed a role's metadata."""
    delegator: Root | Targets
    metadata: Metadata[Targets]
    if role == "targets":
        delegator, metadata = offline.root.signed, offline.targets
    else:
        delegator, metadata = offline.targets.signed, offline.models[role]
    found = delegator.get_verification_result(role, metadata.signed_bytes, metadata.signatures)
    return Signed(
        role, metadata.signed.version, metadata.signed.expires.timestamp(), found.threshold,
        tuple(sorted(found.signed)), tuple(sorted(found.unsigned)),
    )  # fmt: skip


def known_of(offline: Offline, model: str, target: TargetFile | None) -> Known:
    """Returns whom to believe of a model's provenance."""
    keys: dict[str, Key] = _keys(offline.root.signed, "targets")
    role = model_role(model)
    if role in offline.delegated:
        keys |= _keys(offline.targets.signed, role)
    named = listed_in(target.custom, PROVENANCE) if target is not None else None
    return Known(keys, frozenset({named.sha256} if named else ()))


def origin(store: Store, build: Build, known: Known) -> Origin:
    """Reads and checks a build's provenance."""
    if not build.provenance:
        return Origin(state="none", reason="it was published without a statement of its origin")
    try:
        body = store.read(build.provenance, _ENVELOPE_LIMIT_BYTES)
    except KedgeError as error:
        return Origin(state="bad", reason=f"it cannot be read: {error}")
    return judge(body, build.manifest_sha256, known)


def _keys(delegator: Root | Targets, role: str) -> dict[str, Key]:
    found = delegator.get_delegated_role(role)
    return {each: delegator.get_key(each) for each in found.keyids}
