"""What a board runs, by its own signature, and where that came from, by its builders'."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from kedge_builder.publishing.keys import KeySet
from kedge_builder.publishing.origin import ENVELOPE_LIMIT_BYTES, known_of
from kedge_builder.publishing.repository import TrustedState
from kedge_builder.publishing.rotation import Standing
from kedge_shared import signing
from kedge_shared.attachments import PROVENANCE, listed_in
from kedge_shared.attestation import Running, fetch_attestations, open_running
from kedge_shared.client import Client
from kedge_shared.errors import InputError, ServiceError, TrustError
from kedge_shared.ids import sha256_hex
from kedge_shared.origin import Known, Origin, judge
from kedge_shared.statement import Statement


@dataclass(frozen=True, kw_only=True)
class DeviceOrigin:
    """A board's last word on what it runs, and the builders' on what that is.

    Attributes:
        device: Name.
        attested: What it signed.
        key: Id of its key, as the server has it.
        listed: Whether the signed targets list that manifest: ``yes``, ``no``, or ``not checked``
            where this machine has no pinned root.
        origin: Of the build.
    """

    device: str
    attested: Statement[Running]
    key: str
    listed: str
    origin: Origin


def explain_device(client: Client, device: str, keys_folder: Path) -> DeviceOrigin:
    """Follows a board's engine back to what it was made from.

    Args:
        client: Of the operator.
        device: Name.
        keys_folder: That ``kedge keys init`` wrote, or the public part of it; may be missing: then
            only the board's signature is checked, and that is said.

    Raises:
        InputError: The board attested nothing yet.
        TrustError: Its newest attestation does not hold.
        ServiceError: The server does not answer.
    """
    newest = next(iter(fetch_attestations(client, device, 1)), None)
    if newest is None:
        raise InputError(
            f"{device} has attested nothing",
            "a board does after its first confirmation or rollback",
        )
    said = open_running(newest.envelope, signing.key_from_dict(newest.key))
    if newest.refused:
        raise TrustError("attestation", f"the newest attestation of {device}: {newest.refused}")
    running = said.predicate
    sha256 = _published(client, running)
    known: Known | None = None
    listed = "not checked"
    if KeySet.at(keys_folder).root.is_file():
        state = keys_folder / "state"
        standing = TrustedState(
            state, KeySet.at(keys_folder).root, client.server, client.http
        ).standing()
        known, listed = known_of(keys_folder, running.model), "no"
        signed = _listed(standing, running)
        if signed is not None:
            listed, sha256 = "yes", signed
    return DeviceOrigin(
        device=device, attested=said, key=str(newest.key.get("keyid", "")), listed=listed,
        origin=_origin(client, sha256, running, known),
    )  # fmt: skip


def lines(found: DeviceOrigin) -> Iterator[str]:
    """Yields what an operator reads."""
    running = found.attested.predicate
    yield f"{found.device} ({running.device_class}) runs {running.model} {running.release}"
    yield f"  engine {running.engine}"
    yield f"  attested: {running.event} {running.deployment}, signed by key {found.key[:12]}"
    figures = ", ".join(f"{key} {value:g}" for key, value in running.health.items())
    yield f"  verdict {running.verdict.code}; {figures or 'no figures'}"
    said = {
        "yes": "among the signed targets now",
        "no": "NOT among the signed targets any more, or never",
        "not checked": "not held against the signed targets: name the folder of keys with --keys",
    }
    yield f"  manifest {running.manifest_path}: {said[found.listed]}"
    yield from origin_lines(found.origin)


def origin_lines(origin: Origin) -> Iterator[str]:
    """Yields what an operator reads of a build's provenance."""
    by = f" ({', '.join(each[:12] for each in origin.keys)})" if origin.keys else ""
    yield f"provenance: {origin.state}: {origin.reason}{by}"
    if origin.statement is None:
        return
    made = origin.statement.predicate
    read = made.build_definition.resolved_dependencies
    for each in [each for each in read if not each.name.startswith("calibration/")]:
        of = each.annotations.get("digestOf", "")
        digest = each.digest.get("sha256", "")
        yield f"  {each.name}: {digest}{f' (of {of})' if of else ''}"
    images = sum(each.name.startswith("calibration/") for each in read)
    yield f"  calibration: {images} images, each by its hash"
    tools = made.run_details.builder.version
    named = ", ".join(f"{name} {version}" for name, version in sorted(tools.items()))
    yield f"  built with {named or 'tools that it does not name'}"


def _published(client: Client, running: Running) -> str:
    """Returns the hash of the provenance as the server has it, empty if it has none."""
    try:
        builds = client.release(running.model, running.release).builds
    except ServiceError as error:
        if error.status == 404:
            return ""
        raise
    mine = [each for each in builds if each.manifest_sha256 == running.manifest_sha256]
    return mine[0].provenance if mine else ""


def _listed(standing: Standing, running: Running) -> str | None:
    """Returns the provenance's hash that signed targets name; ``None`` if they do not list it."""
    for metadata in (standing.targets, *standing.models.values()):
        target = metadata.signed.targets.get(running.manifest_path)
        if target is not None and target.hashes.get("sha256") == running.manifest_sha256:
            named = listed_in(target.custom, PROVENANCE)
            return named.sha256 if named else ""
    return None


def _origin(client: Client, sha256: str, running: Running, known: Known | None) -> Origin:
    if not sha256:
        return Origin(state="none", reason="the build was published without provenance")
    body = client.read(f"/api/v1/artifacts/{sha256}", ENVELOPE_LIMIT_BYTES)
    if sha256_hex(body) != sha256:
        return Origin(state="bad", reason="the server sends other bytes than are listed")
    return judge(body, running.manifest_sha256, known)
