"""Attestations: believed only from the board's own key, of what it reports and what was built."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from typer.testing import CliRunner

from kedge_server.audit.service import newest
from kedge_server.database import transaction
from kedge_shared import signing, wire
from kedge_shared.attestation import (
    RUNNING_TYPE,
    AttestationInfo,
    Judged,
    Running,
    evidence_hash,
    fetch_attestations,
    open_running,
    state_running,
)
from kedge_shared.cli import build_app
from kedge_shared.errors import InputError, TrustError
from kedge_shared.manifest import read_manifest
from kedge_shared.phases import Phase
from kedge_shared.protocol import REPORT_TYPE, Verdict
from kedge_shared.statement import Statement
from tests.sim.device import SimDevice
from tests.sim.world import TOKEN, World

VERDICT = Verdict(code="ok", reason="served", evidence={"frames": 60, "agreement": 0.98})


@pytest.fixture
def device(running: World) -> SimDevice:
    running.publish("1.0", 10)
    found = running.enrol("cam-1")
    running.roll_out("1.0")
    found.poll()
    return found


def honest(world: World, board: SimDevice, /, **changes: Any) -> Statement[Running]:
    """What the board should say after its next report."""
    folder = world.home / "builds" / "1.0" / "x86-onnxruntime"
    body = (folder / "manifest.json").read_bytes()
    manifest = read_manifest(body)
    assert board.assignment is not None
    assert board.assignment.manifest is not None
    running = Running(
        device="cam-1", device_class="x86-onnxruntime", workload="main", event="confirmed",
        deployment=board.assignment.deployment, model="shapes", release="1.0",
        release_counter=10, engine=manifest.engine_hash, manifest_path=manifest.target_path,
        manifest_sha256=board.assignment.manifest.sha256,
        verdict=Judged(code="ok", evidence_sha256=evidence_hash(VERDICT)),
        health={"frames": 60.0}, agent="0.1.0", runtimes={"onnxruntime": "1.32"},
        boot_id=board.boot, epoch=1, counter=board.assignment.counter, clock=1000,
        not_before=900,
    )  # fmt: skip
    return state_running(manifest, msgspec.structs.replace(running, **changes))


def send(
    device: SimDevice, said: Statement[Running], envelope: dict[str, Any] | None = None,
    **changes: Any,
) -> None:  # fmt: skip
    """Sends a report with an attestation, both as the board signs them unless told otherwise."""
    sealed = envelope or signing.seal(said, RUNNING_TYPE, device.signer)
    engine = changes.pop("engine", said.predicate.engine)
    body = device.report(
        Phase.CONFIRMED, VERDICT, engine=engine, release="1.0", attestation=sealed, **changes
    )
    answer = device.send(body)
    assert answer.json() == {"accepted": 1, "duplicates": 0}, answer.text


def kept(world: World) -> AttestationInfo:
    return fetch_attestations(world.operator, "cam-1")[0]


def events(world: World) -> list[str]:
    with transaction(world.context.engine) as session:
        return [each.detail for each in newest(session, 20) if "attestation" in each.action]


def test_what_a_board_runs_is_kept_and_can_be_checked_with_its_key_alone(
    running: World, device: SimDevice
) -> None:
    send(device, honest(running, device))
    found = kept(running)
    assert (found.refused, found.published, found.event) == ("", True, "confirmed")
    assert found.key == signing.key_to_dict(device.signer.public_key)
    said = open_running(found.envelope, device.signer.public_key)
    assert said.predicate.release == "1.0"
    assert events(running) == []


def twisted(said: Statement[Running]) -> Statement[Running]:
    return msgspec.structs.replace(
        said, subject=(msgspec.structs.replace(said.subject[0], digest={"sha256": "f" * 64}),)
    )


LIES = {
    "device": {"device": "cam-2"}, "boot": {"boot_id": "another"},
    "workload": {"workload": "side"}, "deployment": {"deployment": "de-other"},
    "event": {"event": "rolled_back"}, "release": {"release": "9.9"},
    "verdict": {"verdict": Judged(code="undecided", evidence_sha256=evidence_hash(VERDICT))},
    "evidence": {"verdict": Judged(code="ok", evidence_sha256="0" * 64)},
    "class": {"device_class": "x86-openvino"}, "manifest": {"manifest_sha256": "d" * 64},
    "path": {"manifest_path": "models/shapes/1.0/other/manifest.json"},
    "counter": {"release_counter": 11},
}  # fmt: skip


def test_an_attestation_of_something_else_is_refused_with_the_reason(
    running: World, device: SimDevice
) -> None:
    for told, (lie, changes) in enumerate(LIES.items(), 1):
        send(device, honest(running, device, **changes))
        found = kept(running)
        assert found.refused, lie
        assert found.manifest == ""
        assert (len(events(running)), events(running)[0]) == (told, found.refused)


def test_files_of_another_build_are_refused(running: World, device: SimDevice) -> None:
    said = twisted(honest(running, device))
    send(device, said, engine=said.predicate.engine)
    assert "subjects" in kept(running).refused
    other = msgspec.structs.replace(
        said, predicate=msgspec.structs.replace(said.predicate, engine="f" * 64)
    )
    send(device, other)
    assert "files" in kept(running).refused


@pytest.mark.parametrize("how", ["another key", "another type", "one bit", "nonsense"])
def test_what_the_board_did_not_sign_is_refused(
    running: World, device: SimDevice, how: str
) -> None:
    said = honest(running, device)
    envelope = signing.seal(said, RUNNING_TYPE, device.signer)
    if how == "another key":
        envelope = signing.seal(said, RUNNING_TYPE, signing.generate())
    elif how == "another type":
        envelope = signing.seal(said, REPORT_TYPE, device.signer)
    elif how == "one bit":
        envelope["payload"] = envelope["payload"][:-8] + "AAAAAAA="
    else:
        envelope = {"payload": [1], "signatures": "x"}
    send(device, said, envelope)
    assert kept(running).refused
    assert len(events(running)) == 1


def test_the_report_still_counts_when_its_attestation_does_not(
    running: World, device: SimDevice
) -> None:
    """A rollback whose attestation is faulty is harm that must be seen."""
    send(device, honest(running, device), {"payload": ""})
    (row,) = running.operator.device_deployments("cam-1")
    assert row.phase is Phase.CONFIRMED


def test_a_report_that_comes_twice_attests_once(running: World, device: SimDevice) -> None:
    said = honest(running, device)
    body = device.report(
        Phase.CONFIRMED, VERDICT, engine=said.predicate.engine, release="1.0",
        attestation=signing.seal(said, RUNNING_TYPE, device.signer),
    )  # fmt: skip
    device.send(body)
    assert device.send(body).json() == {"accepted": 0, "duplicates": 1}
    assert len(fetch_attestations(running.operator, "cam-1")) == 1


def test_a_build_that_a_restored_server_forgot_is_no_lie(running: World, device: SimDevice) -> None:
    said = honest(running, device)
    unknown = msgspec.structs.replace(said.predicate, model="other")
    send(device, msgspec.structs.replace(said, predicate=unknown))
    assert (kept(running).refused, kept(running).published) == ("", False)


def run(world: World, monkeypatch: pytest.MonkeyPatch, *words: str) -> Any:
    monkeypatch.setenv("KEDGE_TOKEN", TOKEN)
    return CliRunner().invoke(build_app(), ["device", *words, "--server", world.url])


def test_an_operator_sees_it_and_checks_it_offline(
    running: World, device: SimDevice, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    send(device, honest(running, device))
    out = tmp_path / "cam-1.json"
    shown = run(running, monkeypatch, "attestation", "cam-1", "--out", str(out))
    assert shown.exit_code == 0, shown.output
    assert "runs shapes 1.0" in shown.output
    assert "signature: holds" in shown.output
    listed = run(running, monkeypatch, "show", "cam-1")
    assert "signature: holds" in listed.output
    alone = CliRunner().invoke(
        build_app(), ["device", "verify", str(out), "--key", f"{out}.pub", "--json"]
    )
    assert json.loads(alone.output)["predicate"]["release"] == "1.0"
    # From the board itself: openssl pkey -in device.key -pubout.
    pem = tmp_path / "cam-1.pem"
    private: Any = device.signer._private_key
    pem.write_bytes(
        private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    )
    by_pem = CliRunner().invoke(build_app(), ["device", "verify", str(out), "--key", str(pem)])
    assert by_pem.exit_code == 0, by_pem.output
    pem.write_bytes(pem.read_bytes().replace(b"M", b"!"))
    torn = CliRunner().invoke(build_app(), ["device", "verify", str(out), "--key", str(pem)])
    assert isinstance(torn.exception, InputError)
    other = tmp_path / "other.pub"
    other.write_bytes(wire.encode(signing.key_to_dict(signing.generate().public_key)))
    refused = CliRunner().invoke(build_app(), ["device", "verify", str(out), "--key", str(other)])
    assert isinstance(refused.exception, TrustError)
    pinned = run(running, monkeypatch, "attestation", "cam-1", "--key", str(other))
    assert isinstance(pinned.exception, TrustError), "the server's word for the key is not enough"


def test_a_refused_one_is_shown_as_such(
    running: World, device: SimDevice, monkeypatch: pytest.MonkeyPatch
) -> None:
    send(device, replace_release(honest(running, device)))
    shown = run(running, monkeypatch, "attestation", "cam-1", "--json")
    assert isinstance(shown.exception, TrustError)
    body = json.loads(shown.output[: shown.output.rindex("}") + 1])
    assert body["checked"]["wrong"]


def replace_release(said: Statement[Running]) -> Statement[Running]:
    return msgspec.structs.replace(
        said, predicate=msgspec.structs.replace(said.predicate, release="9.9")
    )


def test_evidence_means_the_same_on_both_sides() -> None:
    """The board hashes what it holds, the server what it read."""
    evidence = {"a": 1, "b": 0.1 + 0.2, "c": None, "d": "ü", "e": float("nan"), "f": (1, 2)}
    verdict = replace(VERDICT, evidence=evidence)
    read = wire.decode(wire.encode(verdict), Verdict, "verdict")
    assert evidence_hash(read) == evidence_hash(verdict)
