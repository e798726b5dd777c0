"""What a board says it runs, signed with its own key: an in-toto statement about the engine.

Made when a deployment is confirmed and when one was rolled back, sent with the report of that and
kept by the server; whoever has the board's public key can check it without either of them. It is
the board's word: a board that was taken over itself says what it likes (docs/security.md). The
predicate is described in docs/predicates/kedge-running.md.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal

import msgspec
from msgspec import Meta
from securesystemslib.signer import Key

from kedge_shared import wire
from kedge_shared.errors import TrustError
from kedge_shared.ids import Count, Name, Sha256, sha256_hex
from kedge_shared.manifest import Manifest
from kedge_shared.phases import Phase
from kedge_shared.protocol import Report, Unix, Verdict, VerdictCode
from kedge_shared.statement import Statement, subjects, unseal_statement

if TYPE_CHECKING:
    # A board signs attestations and has no use for the operators' client.
    from kedge_shared.client import Client

#: Of its own, so that nothing else which a board signs can be passed off as one; the form is
#: in-toto's for a predicate's own media type (spec/v1/envelope.md).
RUNNING_TYPE = "application/vnd.in-toto.kedge-running+json"
RUNNING_PREDICATE = "urn:kedge:running:v1"
ATTESTATION_LIMIT_BYTES = 16 * 1024
ATTESTED: dict[Phase, Literal["confirmed", "rolled_back"]] = {
    Phase.CONFIRMED: "confirmed",
    Phase.ROLLED_BACK: "rolled_back",
}
_ANSWER_LIMIT_BYTES = 16 * 1024 * 1024
#: Figures of health; a verdict's evidence may hold more.
_FIGURES = 32


class Judged(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """The verdict that it stands on.

    Attributes:
        code: Stable word.
        cause: Where it failed: ``harm``, ``undecided`` or ``environment``.
        evidence_sha256: Of the verdict's evidence as the report holds it, keys sorted.
    """

    code: VerdictCode
    cause: str | None = None
    evidence_sha256: Sha256


class Running(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """What a board runs, and since when it can prove that.

    Attributes:
        device: Who says so.
        device_class: What it is.
        workload: The model's place on it.
        event: What has just ended.
        deployment: Which one.
        model: Model that serves.
        release: Its release.
        release_counter: Order of releases.
        engine: Hash of the engine's main file.
        manifest_path: TUF target path of its manifest.
        manifest_sha256: Hash of its manifest.
        verdict: How the deployment ended.
        health: Figures of the trial that was just passed or failed.
        agent: Version of the agent.
        runtimes: Runtime → version.
        boot_id: As in the report.
        epoch: Of the director whose assignment was accepted last.
        counter: Of that assignment: it says this not before.
        clock: Unix seconds by the board's clock, which may be wrong.
        not_before: Newest Unix time of which the board has signed proof.
    """

    device: Name
    device_class: Name
    workload: Name
    event: Literal["confirmed", "rolled_back"]
    deployment: Annotated[str, Meta(max_length=100)]
    model: Name
    release: Name
    release_counter: Count
    engine: Sha256
    manifest_path: Annotated[str, Meta(max_length=300)]
    manifest_sha256: Sha256
    verdict: Judged
    health: Annotated[dict[str, float], Meta(max_length=_FIGURES)]
    agent: Annotated[str, Meta(max_length=64)]
    runtimes: Annotated[dict[str, str], Meta(max_length=16)]
    boot_id: Annotated[str, Meta(max_length=64)]
    epoch: Count
    counter: Count
    clock: Unix
    not_before: Unix


def evidence_hash(verdict: Verdict) -> str:
    """Returns the SHA-256 of a verdict's evidence."""
    return sha256_hex(wire.encode(verdict.evidence))


def health_of(verdict: Verdict) -> dict[str, float]:
    """Returns the figures among a verdict's evidence."""
    numbers = {
        key: float(value) for key, value in sorted(verdict.evidence.items())
        if isinstance(value, int | float) and math.isfinite(value)
    }  # fmt: skip
    return dict(list(numbers.items())[:_FIGURES])


def state_running(manifest: Manifest, predicate: Running) -> Statement[Running]:
    """Returns the statement about the files that a board's runtime loads."""
    return Statement(
        subject=subjects((each.name, each.sha256) for each in manifest.engine_files),
        predicate_type=RUNNING_PREDICATE,
        predicate=predicate,
    )


def open_running(envelope: dict[str, Any], key: Key) -> Statement[Running]:
    """Checks an attestation's signature and returns what it says.

    Raises:
        TrustError: It is not signed by ``key``, or no attestation.
    """
    return unseal_statement(
        envelope, RUNNING_TYPE, Running, RUNNING_PREDICATE, key,
        limit_bytes=ATTESTATION_LIMIT_BYTES,
    )  # fmt: skip


def check_running(said: Statement[Running], report: Report) -> None:
    """Checks that an attestation says what the report says that it came with.

    Raises:
        TrustError: It speaks of something else (``mix``).
    """
    running = said.predicate
    pairs = {
        "device": (running.device, report.device),
        "boot": (running.boot_id, report.boot_id),
        "workload": (running.workload, report.workload),
        "deployment": (running.deployment, report.deployment),
        "event": (running.event, ATTESTED.get(report.phase)),
        "engine": (running.engine, report.engine),
        "release": (running.release, report.release),
        "verdict": (running.verdict.code, report.verdict.code),
        "evidence": (running.verdict.evidence_sha256, evidence_hash(report.verdict)),
    }
    for what, (attested, reported) in pairs.items():
        if attested != reported:
            raise TrustError("mix", f"its {what} is not the report's")
    if running.engine not in said.digests:
        raise TrustError("mix", "its engine is not among its subjects")


def check_build(said: Statement[Running], manifest: Manifest) -> None:
    """Checks that what a board runs is what the build of that manifest holds.

    Raises:
        TrustError: Other files, another model, release or class (``mix``).
    """
    running = said.predicate
    attested = (running.model, running.release, running.device_class, running.release_counter)
    built = (manifest.model, manifest.release, manifest.device_class, manifest.release_counter)
    if attested != built or running.manifest_path != manifest.target_path:
        raise TrustError("mix", "it names a manifest of another build")
    if said.digests != {each.sha256 for each in manifest.engine_files}:
        raise TrustError("mix", "its files are not those of the build that it names")


@dataclass(frozen=True, kw_only=True)
class AttestationInfo:
    """An attestation as the server keeps it.

    Attributes:
        device: Who signed it.
        received: Unix seconds.
        event: ``confirmed`` or ``rolled_back``.
        release: Release that serves; of a refused one, as the report said it.
        engine: Hash of the engine's main file.
        manifest: Hash of the manifest; empty if refused.
        published: This server knows the build, and its files are those that were attested.
        refused: Why it was not believed; empty if it was.
        key: The device's public key at that time.
        envelope: The DSSE envelope, to be checked with that key.
    """

    device: Name
    received: float
    event: str
    release: str
    engine: str
    manifest: str
    published: bool
    refused: str
    key: dict[str, Any]
    envelope: dict[str, Any]


def fetch_attestations(client: Client, device: str, most: int = 20) -> list[AttestationInfo]:
    """Returns what a device attested, newest first, as the server has it; nothing is checked.

    Raises:
        ServiceError: The server does not answer, or knows no such device.
    """
    data = client.read(f"/api/v1/devices/{device}/attestations?most={most}", _ANSWER_LIMIT_BYTES)
    return wire.decode(data, list[AttestationInfo], "server's answer")
