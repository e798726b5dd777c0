"""A thief against a running server, with the key of each role in turn: what it gains, and what not.

What boards make of stolen keys stands in test_attacks.py; here the server is asked, and a real
board's view of it.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import httpx
import pytest
from securesystemslib.signer import CryptoSigner
from tuf.api.metadata import Metadata

from kedge_builder.publishing.keyring import Keyring
from kedge_builder.publishing.publish import gather, publish
from kedge_builder.publishing.rotation import Change, add_targets, change, delegate, next_of
from kedge_shared import api, signing, wire
from kedge_shared.attestation import fetch_attestations
from kedge_shared.errors import InputError, ServiceError
from kedge_shared.phases import Phase
from kedge_shared.trust import DIRECTOR_PATH, DirectorKey
from tests.server.test_attestations import honest, send
from tests.sim.device import SimDevice
from tests.sim.world import World, world, write_build


@pytest.fixture
def running(tmp_path: Path) -> Iterator[World]:
    with world(tmp_path) as found:
        found.publish("1.0", 10)
        yield found


def key_of(found: World, role: str) -> CryptoSigner:
    folder = found.trust.offline if role in {"root", "targets"} else found.trust.online
    return signing.load_private_key(folder / f"{role}.key")


def thief(*signers: CryptoSigner) -> Keyring:
    """Has these keys and no other."""
    return Keyring({each.public_key.keyid: each for each in signers})


def offer(found: World, texts: dict[str, bytes], token: str | None = None) -> httpx.Response:
    headers = {} if token is None else {"Authorization": token}
    return httpx.post(
        f"{found.url}/api/v1/repository/metadata", headers=headers or None,
        json={role: body.decode() for role, body in texts.items()},
    )  # fmt: skip


def operators(found: World) -> str:
    return str(found.operator.http.headers["Authorization"])


def evil(found: World, release: str = "6.6") -> Path:
    return write_build(found.home / release, release, 66, engine=b"malware" * 100)


def bring(found: World, folder: Path, ring: Keyring) -> None:
    scratch = found.home / "scratch"
    state = found.publisher("thief")
    publish(gather([folder]), found.operator, state, ring, lambda *_: None, scratch)


def second_key(found: World, role: str) -> CryptoSigner:
    """From now on two keys must sign for a role; returns the one that is not stolen."""
    other = signing.generate()
    ring = Keyring.load(found.trust.offline)
    ring.add(other)
    what = Change(role, add=[other.public_key], threshold=2)
    found.operator.publish_metadata(change(found.publisher().standing(), what, ring))
    return other


def test_one_root_key_of_two_changes_no_role_though_it_has_the_operators_token(
    running: World,
) -> None:
    second_key(running, "root")
    stolen, mine = key_of(running, "root"), signing.generate()
    standing = running.publisher().standing()
    following = replace_signed(standing.root)
    following.signed.revoke_key(next(iter(standing.role("targets").keyids)), "targets")
    following.signed.add_key(mine.public_key, "targets")
    following.sign(stolen)
    answer = offer(running, {"root": following.to_bytes()}, operators(running))
    assert answer.status_code == 400
    assert "not signed as" in answer.json()["error"]
    assert running.operator.repository().root == standing.root.signed.version
    with pytest.raises(InputError, match="takes 2 of 2"):
        change(standing, Change("targets", add=[mine.public_key]), thief(stolen))


def replace_signed(metadata: Metadata[Any]) -> Metadata[Any]:
    following: Metadata[Any] = Metadata.from_bytes(metadata.to_bytes())
    following.signed.version += 1
    following.signatures.clear()
    return following


def test_a_targets_key_without_a_token_is_not_even_heard(running: World) -> None:
    board = running.enrol("cam-1")
    following = next_of(running.publisher().standing(), "targets", datetime.now(timezone.utc))
    following.sign(key_of(running, "targets"))
    signed = {"targets": following.to_bytes()}
    assert offer(running, signed).status_code == 401
    assert offer(running, signed, board.http.headers["Authorization"]).status_code == 401


def test_a_targets_key_with_the_operators_token_lists_what_it_likes_and_the_log_tells(
    running: World,
) -> None:
    """The worst that two thefts together do; a threshold of two is what is against it."""
    bring(running, evil(running), thief(key_of(running, "targets")))
    assert [each.release for each in running.operator.releases()] == ["6.6", "1.0"]
    assert "models/shapes/6.6/" in running.operator.http.get("/api/v1/audit").text


def test_one_targets_key_of_two_lists_nothing(running: World) -> None:
    second_key(running, "targets")
    stolen = thief(key_of(running, "targets"))
    with pytest.raises(InputError, match="takes 2 of 2"):
        bring(running, evil(running), stolen)
    following = next_of(running.publisher().standing(), "targets", datetime.now(timezone.utc))
    following.signatures.clear()
    following.sign(key_of(running, "targets"))
    answer = offer(running, {"targets": following.to_bytes()}, operators(running))
    assert answer.status_code == 400


def test_a_teams_key_with_the_operators_token_reaches_its_own_model_only(running: World) -> None:
    team, ring = signing.generate(), Keyring.load(running.trust.offline)
    signed = delegate(running.publisher().standing(), "pipes", team.public_key, ring)
    running.operator.publish_metadata(signed)
    standing = running.publisher().standing()
    mine = DirectorKey(epoch=9, key=signing.key_to_dict(signing.generate().public_key))
    folder = evil(running)
    manifest = (folder / "x86-onnxruntime" / "manifest.json").read_bytes()
    for path, body in {
        DIRECTOR_PATH: wire.encode(mine),
        "models/shapes/6.6/x86-onnxruntime/manifest.json": manifest,
    }.items():
        following = next_of(standing, "model-pipes", datetime.now(timezone.utc))
        add_targets(following, {path: body})
        following.sign(team)
        answer = offer(running, {"model-pipes": following.to_bytes()}, operators(running))
        assert answer.status_code == 400, path
        assert "may not list" in answer.json()["error"]
    with pytest.raises(InputError, match="at hand"):
        bring(running, folder, thief(team))


@pytest.mark.parametrize("role", ["snapshot", "timestamp", "director"])
def test_the_servers_own_keys_publish_nothing(running: World, role: str) -> None:
    stolen = key_of(running, role)
    with pytest.raises(InputError, match="at hand"):
        bring(running, evil(running), thief(stolen))
    current = running.operator.read("/tuf/metadata/timestamp.json", 10**6)
    answer = offer(running, {"timestamp": current}, operators(running))
    assert answer.status_code == 400
    following = next_of(running.publisher().standing(), "targets", datetime.now(timezone.utc))
    following.sign(stolen)
    assert offer(running, {"targets": following.to_bytes()}, operators(running)).status_code == 400


def test_a_device_key_lies_of_its_own_board_alone_and_of_nothing_that_was_not_built(
    running: World,
) -> None:
    board, other = running.enrol("cam-1"), running.enrol("cam-2")
    running.roll_out("1.0")
    board.poll()
    other.poll()
    thief_of_one = SimDevice(running.url, "cam-1", board.device_class, running.trust.root)
    thief_of_one.signer = board.signer
    assert thief_of_one.enrol("no-token").status_code == 401, "the key alone enrols nothing"
    said = honest(running, board)
    send(board, said)
    assert fetch_attestations(running.operator, "cam-1")[0].refused == "", "its own board: it can"
    other.signer = board.signer
    answer = other.send(other.report(Phase.CONFIRMED))
    assert answer.status_code == 400, "another board: it cannot"
    assert fetch_attestations(running.operator, "cam-2") == []
    thief_of_one.http.close()


def test_a_stolen_enrolment_token_brings_one_stranger_and_takes_nobodys_name(
    running: World,
) -> None:
    running.enrol("cam-1")
    token = running.operator.enrolment_tokens(api.TokenRequest())[0].token
    thieves = [
        SimDevice(running.url, name, "x86-onnxruntime", running.trust.root)
        for name in ("cam-1", "stranger", "second")
    ]
    assert [each.enrol(token).status_code for each in thieves] == [409, 200, 401]
    for each in thieves:
        each.http.close()


def test_a_stolen_database_opens_nothing(running: World) -> None:
    """What is stored of a token is its hash: it is no token."""
    running.enrol("cam-1")
    with sqlite3.connect(running.home / "server" / "kedge.db") as base:
        (stored,) = base.execute("SELECT token_hash FROM device").fetchone()
        (operators,) = base.execute("SELECT token_hash FROM api_token").fetchone()
    base.close()
    for token in (stored, operators):
        for path in ("/api/v1/device/poll", "/api/v1/devices"):
            answer = httpx.get(running.url + path, headers={"Authorization": f"Bearer {token}"})
            assert answer.status_code == 401


def test_the_operators_token_alone_rolls_out_what_is_listed_and_publishes_nothing(
    running: World,
) -> None:
    running.enrol("cam-1")
    assert running.roll_out("1.0").state == "running", "that is what it is for"
    with pytest.raises(InputError, match="at hand"):
        bring(running, evil(running), thief(signing.generate()))
    with pytest.raises(ServiceError, match="no release"):
        running.roll_out("6.6")
