"""Everything that takes bytes from elsewhere apart, and the one error that it may raise."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from securesystemslib.dsse import Envelope
from tuf.api.metadata import Metadata, Root

from kedge_agent.bundles.files import open_bundle, read_table
from kedge_server.devices.selectors import parse as parse_selector
from kedge_server.egress import parse as parse_url
from kedge_server.errors import RequestError
from kedge_server.repository.publication import Offline, follow
from kedge_shared import signing, wire
from kedge_shared.attachments import all_listed_in
from kedge_shared.attestation import RUNNING_TYPE, Running, check_running, open_running
from kedge_shared.build_report import read_build_report
from kedge_shared.bundle import Bundle
from kedge_shared.errors import InputError, KedgeError, TrustError
from kedge_shared.manifest import read_manifest
from kedge_shared.origin import Known, judge
from kedge_shared.phases import Phase
from kedge_shared.policy import read_policy
from kedge_shared.protocol import (
    ASSIGNMENT_LIMIT_BYTES,
    ASSIGNMENT_TYPE,
    REPORT_TYPE,
    Assignment,
    Report,
    Verdict,
)
from kedge_shared.rollouts import RolloutSpec
from kedge_shared.statement import Statement
from kedge_shared.trust import DirectorKey, Seen, check_assignment
from tests.shared import samples
from tests.trust.repository import MemoryRepository

SIGNER = signing.generate()


@dataclass(frozen=True)
class Target:
    """A parser.

    Attributes:
        take: Takes bytes apart.
        refuses: What it may raise.
        good: What it takes, to begin mutations from.
    """

    take: Callable[[bytes], object]
    refuses: type[Exception] | tuple[type[Exception], ...]
    good: bytes


def _json(data: bytes) -> Any:
    """Returns what a route's body reader hands on."""
    try:
        found = json.loads(data)
    except (ValueError, RecursionError):
        raise InputError("no JSON") from None
    if not isinstance(found, dict):
        raise InputError("no object")
    return found


def _assignment(data: bytes) -> object:
    found = signing.unseal(
        _json(data), ASSIGNMENT_TYPE, Assignment, SIGNER.public_key,
        limit_bytes=ASSIGNMENT_LIMIT_BYTES,
    )  # fmt: skip
    check_assignment(found, samples.pinned(), Seen(), 1500)
    return found


def _signed_anything(data: bytes) -> object:
    """Whoever has the key signs any payload at all."""
    envelope = Envelope(data, ASSIGNMENT_TYPE, {})
    envelope.sign(SIGNER)
    return _assignment(json.dumps(envelope.to_dict()).encode())


def _attested(data: bytes) -> object:
    envelope = Envelope(data, RUNNING_TYPE, {})
    envelope.sign(SIGNER)
    said = open_running(dict(envelope.to_dict()), SIGNER.public_key)
    check_running(said, report())
    return said


def report() -> Report:
    """A report to hold attestations against."""
    return Report(
        device="cam-1", boot_id="b", seq=1, created=1, deployment="d", workload="main",
        phase=Phase.CONFIRMED, engine="e" * 64, release="1.0", verdict=Verdict(code="ok"),
    )  # fmt: skip


def _key(data: bytes) -> object:
    return signing.key_from_dict(_json(data))


def _bundle(data: bytes) -> object:
    with tempfile.NamedTemporaryFile(suffix=".kedge") as file:
        file.write(data)
        file.flush()
        files = open_bundle(Path(file.name))
        try:
            return read_table(files)
        finally:
            files.close()


def _standing() -> Offline:
    """What stands, to hold offered metadata against."""
    made = MemoryRepository()
    root = Metadata[Root].from_bytes(made.pinned)
    targets = Metadata(made.targets["targets"])
    targets.sign(made.signers["targets"])
    return Offline(root, targets, {})


STANDING = _standing()


def _offered(role: str) -> Callable[[bytes], object]:
    return lambda data: follow(STANDING, {role: data}, {}, datetime.now(timezone.utc))


def _envelope_of(value: object, kind: str) -> bytes:
    return json.dumps(signing.seal(value, kind, SIGNER)).encode()


def _provenance(data: bytes) -> object:
    found = judge(data, "0" * 64, Known({SIGNER.public_key.keyid: SIGNER.public_key}))
    assert found.state in {"bad", "verified"}
    return found


def _decoded(kind: Any) -> Callable[[bytes], object]:
    return lambda data: wire.decode(data, kind, "thing")


TARGETS: Mapping[str, Target] = {
    "manifest": Target(read_manifest, InputError, wire.encode(samples.manifest())),
    "policy": Target(read_policy, InputError, wire.encode(samples.policy())),
    "assignment": Target(
        _assignment, (InputError, TrustError), _envelope_of(samples.assignment(), ASSIGNMENT_TYPE)
    ),
    "signed assignment": Target(_signed_anything, TrustError, wire.encode(samples.assignment())),
    "report": Target(_decoded(Report), InputError, wire.encode(report())),
    "signed report": Target(
        lambda data: signing.unseal(
            _json(data), REPORT_TYPE, Report, SIGNER.public_key, limit_bytes=65536
        ),
        (InputError, TrustError), _envelope_of(report(), REPORT_TYPE),
    ),
    "attestation": Target(_attested, TrustError, b'{"_type":"x","subject":[],"predicate":{}}'),
    "statement": Target(_decoded(Statement[Running]), InputError, b'{"_type":"x","subject":[]}'),
    "provenance": Target(_provenance, (), b'{"payload":"","payloadType":"","signatures":[]}'),
    "custom": Target(
        lambda data: all_listed_in(_json(data)), InputError,
        b'{"provenance":{"sha256":"","length":1},"report":{"sha256":"","length":1}}',
    ),
    "build report": Target(
        lambda data: read_build_report(data, "a" * 64), (InputError, TrustError),
        wire.encode(samples.build_report()),
    ),
    "public key": Target(
        _key, (InputError, TrustError),
        json.dumps(signing.key_to_dict(SIGNER.public_key)).encode(),
    ),
    "director": Target(_decoded(DirectorKey), InputError, b'{"epoch":1,"key":{}}'),
    "root metadata": Target(
        _offered("root"), RequestError, STANDING.root.to_bytes()
    ),
    "targets metadata": Target(
        _offered("targets"), RequestError, STANDING.targets.to_bytes()
    ),
    "bundle": Target(_bundle, InputError, b"bundle.json" + bytes(89) + b"0000644\0" + bytes(900)),
    "bundle table": Target(_decoded(Bundle), InputError, b'{"schema":1,"model":"m","builds":[]}'),
    "rollout": Target(_decoded(RolloutSpec), InputError, b'{"model":"m","release":"1"}'),
    "selector": Target(
        lambda data: parse_selector(data.decode(errors="surrogateescape")), KedgeError,
        b"class==x86;(tag.site==a,release!=1.0)",
    ),
    "url": Target(
        lambda data: parse_url(data.decode(errors="surrogateescape")), InputError,
        b"https://hooks.example:443/x?y=z",
    ),
}  # fmt: skip


def feed(name: str, data: bytes) -> bool:
    """Gives bytes to a parser; says whether it took them. Any error but its own comes out."""
    target = TARGETS[name]
    try:
        target.take(data)
    except target.refuses as error:
        if isinstance(error, KedgeError):
            assert str(error).isprintable(), f"{name} says what drives a terminal"
        return False
    return True
