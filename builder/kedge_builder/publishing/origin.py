"""The provenance of a build as it lies beside it, and whether a publisher's key signed it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from securesystemslib.signer import Key
from tuf.api.metadata import Metadata, Root, Targets

from kedge_builder.publishing.keys import KeySet
from kedge_builder.publishing.rotation import delegated
from kedge_shared import attachments, wire
from kedge_shared.errors import InputError
from kedge_shared.ids import sha256_hex
from kedge_shared.manifest import MANIFEST_LIMIT_BYTES
from kedge_shared.origin import Known, Origin, judge
from kedge_shared.provenance import PROVENANCE_LIMIT_BYTES, PROVENANCE_PREDICATE, Slsa
from kedge_shared.statement import STATEMENT_TYPE, Statement
from kedge_shared.trust import model_role

#: What ``kedge build`` writes beside the manifest, and what ``kedge publish`` makes of it.
PROVENANCE = "provenance.json"
SEALED = "provenance.dsse.json"
#: Base64 makes three bytes four; signatures come on top.
ENVELOPE_LIMIT_BYTES = PROVENANCE_LIMIT_BYTES * 2


def read_statement(folder: Path) -> Statement[Slsa]:
    """Reads the statement that ``kedge build`` wrote.

    Raises:
        InputError: It is missing or is none.
    """
    path = folder / PROVENANCE
    data = wire.read_limited(path, "provenance", PROVENANCE_LIMIT_BYTES)
    found = wire.decode(data, Statement[Slsa], str(path))
    if (found.type, found.predicate_type) != (STATEMENT_TYPE, PROVENANCE_PREDICATE):
        raise InputError(f"{path} is no SLSA provenance")
    return found


def origin_of(folder: Path, known: Known | None) -> Origin:
    """Says where the build in a folder came from, and who signed that.

    Args:
        folder: Of one class.
        known: Whom to believe; ``None`` if this machine knows of nobody.
    """
    manifest = folder / "manifest.json"
    if not manifest.is_file():
        return Origin(state="none", reason="the build may not be published: it has no manifest")
    digest = sha256_hex(wire.read_limited(manifest, "manifest", MANIFEST_LIMIT_BYTES))
    sealed = folder / SEALED
    if sealed.is_file():
        data = wire.read_limited(sealed, "signed provenance", ENVELOPE_LIMIT_BYTES)
        return judge(data, digest, known)
    if not (folder / PROVENANCE).is_file():
        return Origin(state="none", reason="the builder wrote no provenance")
    said = read_statement(folder)
    if digest not in said.digests:
        return Origin(state="bad", reason="the provenance is of another build")
    return Origin(state="unsigned", reason="not published from here", statement=said)


def known_of(folder: Path, model: str) -> Known:
    """Returns what this machine's verified state believes of a model's releases.

    Args:
        folder: That ``kedge keys init`` wrote; its ``state`` is newer than the pinned root.
        model: Model.

    Raises:
        InputError: The metadata there cannot be read or does not hold together.
    """
    state, role = folder / "state", model_role(model)
    newest = state / "root.json"
    try:
        root = Metadata[Root].from_file(str(newest if newest.exists() else KeySet.at(folder).root))
        keys = _named(root.signed, "targets")
        targets = _signed(root.signed, state, "targets")
        if targets is None:
            return Known(keys, frozenset())
        listed = _provenances(targets)
        if role in delegated(targets):
            keys |= _named(targets.signed.delegations, role)
            model_targets = _signed(targets.signed, state, role)
            listed |= _provenances(model_targets) if model_targets else set()
    # Boundary: python-tuf raises whatever a broken file makes it stumble over.
    except Exception as error:  # noqa: BLE001
        raise InputError(f"metadata in {folder} cannot be read: {error}") from None
    return Known(keys, frozenset(listed))


def _signed(delegator: Root | Targets, state: Path, role: str) -> Metadata[Targets] | None:
    path = state / f"{role}.json"
    if not path.exists():
        return None
    found = Metadata[Targets].from_file(str(path))
    delegator.verify_delegate(role, found.signed_bytes, found.signatures)
    return found


def _provenances(metadata: Metadata[Targets]) -> set[str]:
    named = [
        attachments.listed_in(each.custom, attachments.PROVENANCE)
        for each in metadata.signed.targets.values()
    ]
    return {each.sha256 for each in named if each is not None}


def _named(delegator: Any, role: str) -> dict[str, Key]:
    return {keyid: delegator.keys[keyid] for keyid in delegator.roles[role].keyids}
