"""Where a build came from: signed at publication, named by the targets, shown by kedge explain."""

from __future__ import annotations

import json
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest
from securesystemslib.dsse import Envelope
from securesystemslib.signer import Key
from typer.testing import CliRunner

from kedge_builder.publishing import origin
from kedge_builder.publishing.changes import Desk
from kedge_builder.publishing.origin import known_of, origin_of
from kedge_builder.publishing.rotation import add_targets, next_of
from kedge_builder.report.explain_device import explain_device, lines
from kedge_shared import signing, wire
from kedge_shared.cli import build_app
from kedge_shared.errors import InputError, TrustError
from kedge_shared.ids import sha256_hex
from kedge_shared.origin import Known
from kedge_shared.statement import IN_TOTO_TYPE
from tests.server.offering import offer
from tests.server.test_attestations import honest, send
from tests.sim.world import TOKEN, World, write_build

CLASS = "x86-onnxruntime"


def build_info(world: World, release: str = "1.0") -> Any:
    return world.operator.release("shapes", release).builds[0]


def sealed(world: World, release: str = "1.0") -> bytes:
    return world.operator.read(f"/api/v1/artifacts/{build_info(world, release).provenance}", 10**6)


def targets_key(world: World) -> Key:
    return signing.load_private_key(world.trust.offline / "targets.key").public_key


def test_provenance_travels_with_the_build_signed_by_who_lists_it(running: World) -> None:
    folder = running.publish("1.0", 10) / CLASS
    body = sealed(running)
    envelope = Envelope.from_dict(json.loads(body))
    envelope.verify([targets_key(running)], 1)
    said = json.loads(envelope.payload)
    assert envelope.payload_type == IN_TOTO_TYPE
    assert said["predicateType"] == "https://slsa.dev/provenance/v1"
    digests = {each["digest"]["sha256"] for each in said["subject"]}
    assert digests >= {sha256_hex((folder / each).read_bytes())
                       for each in ("manifest.json", "model.onnx")}  # fmt: skip
    read = said["predicate"]["buildDefinition"]["resolvedDependencies"]
    assert {"weights", "data"} <= {each["name"] for each in read}
    assert (folder / "provenance.dsse.json").read_bytes() == body
    listed = running.publisher("fresh").standing().targets.signed.targets
    target = listed[f"models/shapes/1.0/{CLASS}/manifest.json"]
    assert target.custom == {"provenance": {"sha256": sha256_hex(body), "length": len(body)}}


def test_a_board_takes_a_build_that_has_provenance(running: World) -> None:
    """What is new among the targets must not keep an older client from reading them."""
    running.publish("1.0", 10)
    board = running.enrol("cam-1")
    running.roll_out("1.0")
    board.live()
    assert board.release == "1.0"


def test_explain_says_unsigned_signed_verified_and_bad(running: World) -> None:
    folder = write_build(running.home / "b", "1.0", 10) / CLASS
    keys = running.trust.online.parent
    assert origin_of(folder, None).state == "unsigned"
    running.publish_folder(folder.parent)
    assert origin_of(folder, None).state == "signed"
    found = origin_of(folder, known_of(keys, "shapes"))
    assert (found.state, found.keys) == ("verified", (targets_key(running).keyid,))
    other = signing.generate().public_key
    assert origin_of(folder, Known({other.keyid: other})).state == "bad"
    manifest = folder / "manifest.json"
    manifest.write_bytes(manifest.read_bytes() + b" ")
    assert origin_of(folder, known_of(keys, "shapes")).state == "bad", "of another build"
    (folder / origin.SEALED).unlink()
    assert origin_of(folder, None).state == "bad"
    (folder / origin.PROVENANCE).unlink()
    assert origin_of(folder, None).state == "none"


def test_it_holds_after_the_key_that_signed_it_was_replaced(
    running: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KEDGE_TOKEN", TOKEN)
    folder = running.publish("1.0", 10) / CLASS
    keys = running.trust.online.parent
    with Desk(keys, running.url, None) as desk:
        desk.rotate("targets")
        desk.roles()
    found = origin_of(folder, known_of(keys, "shapes"))
    assert (found.state, found.reason) == ("verified", "named by the signed targets")


def test_publishing_again_signs_nothing_else(running: World) -> None:
    folder = running.publish("1.0", 10)
    before = build_info(running).provenance
    statement = folder / CLASS / "provenance.json"
    changed = json.loads(statement.read_bytes())
    changed["predicate"]["runDetails"]["builder"]["version"] = {"torch": "9"}
    statement.write_bytes(json.dumps(changed).encode())
    running.publish_folder(folder)
    assert build_info(running).provenance == before


def test_a_statement_of_another_build_is_not_signed(running: World) -> None:
    one = write_build(running.home / "one", "1.0", 10) / CLASS
    two = write_build(running.home / "two", "1.1", 11) / CLASS
    (one / "provenance.json").write_bytes((two / "provenance.json").read_bytes())
    with pytest.raises(InputError, match="another build"):
        running.publish_folder(one.parent)


@pytest.mark.parametrize("how", ["not uploaded", "of another build", "no envelope", "malformed"])
def test_the_server_takes_no_targets_whose_provenance_does_not_hold(
    running: World, how: str
) -> None:
    running.publish("1.0", 10)
    other = running.publish("1.1", 11)
    body = (other / CLASS / "provenance.dsse.json").read_bytes()
    if how == "no envelope":
        body = b"[]"
    said: Any = {"sha256": sha256_hex(body), "length": len(body)}
    if how == "not uploaded":
        said = {"sha256": "0" * 64, "length": 5}
    elif how == "no envelope":
        path = running.home / "junk"
        path.write_bytes(body)
        running.operator.upload(path, sha256_hex(body), lambda _: None)
    elif how == "malformed":
        said = {"sha256": "x", "length": -1}
    assert offer(running, CLASS, {"provenance": said}).status_code == 400


def test_custom_of_other_tools_is_left_alone(running: World) -> None:
    folder = running.publish("1.0", 10)
    standing = running.publisher("fresh").standing()
    following = next_of(standing, "targets", datetime.now(timezone.utc))
    path = f"models/shapes/1.0/{CLASS}/manifest.json"
    following.signed.targets[path].unrecognized_fields["custom"]["theirs"] = 1
    add_targets(following, {path: (folder / CLASS / "manifest.json").read_bytes()})
    assert following.signed.targets[path].custom["theirs"] == 1


def test_explain_follows_a_board_back_to_what_its_engine_was_made_from(running: World) -> None:
    running.publish("1.0", 10)
    board = running.enrol("cam-1")
    running.roll_out("1.0")
    board.poll()
    send(board, honest(running, board))
    keys = running.trust.online.parent
    found = explain_device(running.operator, "cam-1", keys)
    assert (found.listed, found.origin.state) == ("yes", "verified")
    text = "\n".join(lines(found))
    assert "cam-1 (x86-onnxruntime) runs shapes 1.0" in text
    assert "weights: " + "a" * 64 in text
    stranger = explain_device(running.operator, "cam-1", running.home / "nothing")
    assert (stranger.listed, stranger.origin.state) == ("not checked", "signed")
    wire.encode_pretty(found)


def test_a_board_that_attested_nothing_is_said_so(running: World) -> None:
    running.enrol("cam-1")
    with pytest.raises(InputError, match="attested nothing"):
        explain_device(running.operator, "cam-1", running.home / "nothing")


def test_the_command_shows_a_board_and_refuses_what_does_not_hold(
    running: World, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("KEDGE_TOKEN", TOKEN)
    monkeypatch.chdir(tmp_path)
    running.publish("1.0", 10)
    board = running.enrol("cam-1")
    running.roll_out("1.0")
    board.poll()
    send(board, honest(running, board))
    keys = str(running.trust.online.parent)
    asked = ["explain", "cam-1", "--server", running.url, "--keys", keys]
    shown = CliRunner().invoke(build_app(), asked)
    assert shown.exit_code == 0, shown.output
    assert "among the signed targets now" in shown.output
    assert "provenance: verified: named by the signed targets" in shown.output
    told = json.loads(CliRunner().invoke(build_app(), [*asked, "--json"]).output)
    assert told["origin"]["state"] == "verified"
    send(board, honest(running, board, release="9.9"))
    refused = CliRunner().invoke(build_app(), asked)
    assert isinstance(refused.exception, TrustError)
    monkeypatch.delenv("KEDGE_TOKEN")
    alone = CliRunner().invoke(build_app(), ["explain", "no-such-folder", "--server", running.url])
    assert "there is no folder no-such-folder" in str(alone.exception)
