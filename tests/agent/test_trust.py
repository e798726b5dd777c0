"""Attacks on a board, one family after the other. Whatever it is told, it goes on as it was."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from kedge_agent.state import State
from kedge_server.database import transaction
from kedge_server.devices.assignments import Signed
from kedge_shared import signing
from kedge_shared.ids import sha256_hex
from kedge_shared.phases import Phase
from kedge_shared.policy import read_policy
from kedge_shared.protocol import (
    ASSIGNMENT_LIMIT_BYTES,
    ASSIGNMENT_TYPE,
    REPORT_TYPE,
    Assignment,
    ManifestRef,
)
from tests.sim.board import SimBoard, settled
from tests.sim.world import World, serve, world, write_build

PATH = "models/shapes/1.1/x86-onnxruntime/manifest.json"


def as_it_was(board: SimBoard) -> bool:
    """Says whether the board serves 1.0, as its runner, journal and slots file tell."""
    slots = json.loads((board.folder / "state" / "slots.json").read_text())
    state = board.state
    return (
        state.active is not None
        and board.runner.active is not None
        and state.active.release == board.runner.active.release == "1.0"
        and slots["active"]["release"] == "1.0"
    )


def refused(state: State) -> bool:
    return state.deployment is not None and state.deployment.phase is Phase.REFUSED


def genuine(world: World, name: str = "cam-1") -> tuple[Assignment, dict[str, Any]]:
    """Returns the assignment that the server has for a board now, and its envelope."""
    with transaction(world.context.engine) as session:
        row = world.context.director.assign(session, name)
    assert row is not None
    envelope = json.loads(row.envelope)
    key = world.context.director._signer.public_key
    opened = signing.unseal(
        envelope, ASSIGNMENT_TYPE, Assignment, key, limit_bytes=ASSIGNMENT_LIMIT_BYTES
    )
    return opened, envelope


def offer(world: World, envelope: dict[str, Any] | None, name: str = "cam-1") -> None:
    """Has the server answer polls with an envelope of ours, for ever."""
    body = json.dumps(envelope)
    # No other offer's: boards are told 304 for what they know.
    counter = 2**50 + int(sha256_hex(body.encode())[:8], 16)
    forged = envelope and Signed(
        device=name, deployment="", intent="install", counter=counter, issued=2**40,
        expires=2**41, envelope=body,
    )  # fmt: skip

    def ours(_: object, asked: Mapping[str, int]) -> dict[str, Any]:
        return dict.fromkeys(asked, forged or None)

    world.context.director.assign_all = ours  # type: ignore[method-assign]
    world.context.index.forget_all()


def sealed(world: World, assignment: Assignment, **how: Any) -> dict[str, Any]:
    signer = how.get("signer", world.context.director._signer)
    return signing.seal(assignment, how.get("kind", ASSIGNMENT_TYPE), signer)


@pytest.fixture
def waiting(running: World, board: SimBoard) -> Assignment:
    """A board on 1.0 for which 1.1 is assigned; returns the genuine assignment."""
    board.install()
    running.publish("1.1", 11)
    running.roll_out("1.1")
    return genuine(running)[0]


FORGERIES = [
    ("another key", {}, {"signer": signing.generate()}),
    ("a report's signature", {}, {"kind": REPORT_TYPE}),
    ("another device", {"device": "cam-2"}, {}),
    ("a cloned name with another key", {"device_key_id": "f" * 64}, {}),
    ("another workload", {"workload": "side"}, {}),
    ("an older counter", {"counter": 1}, {}),
    ("an older epoch", {"epoch": 0}, {}),
    ("an expired one", {"expires": 1_700_000_000}, {}),
    ("an install of nothing", {"manifest": None}, {}),
]


@pytest.mark.parametrize(("_", "changes", "how"), FORGERIES, ids=[row[0] for row in FORGERIES])
def test_forged_assignments_are_not_followed(
    running: World, board: SimBoard, waiting: Assignment, _: str, changes: dict[str, Any],
    how: dict[str, Any],
) -> None:  # fmt: skip
    before = board.state
    offer(running, sealed(running, replace(waiting, **changes), **how))
    board.rest()
    assert board.state.deployment == before.deployment
    assert board.state.counter == before.counter
    assert as_it_was(board)


def test_the_genuine_one_is_followed(running: World, board: SimBoard, waiting: Assignment) -> None:
    """The families above fail for their own reason and no other."""
    offer(running, sealed(running, waiting))
    board.run(lambda s: s.active is not None and s.active.release == "1.1" and settled(s))


def test_a_replayed_assignment_takes_nobody_back(running: World, board: SimBoard) -> None:
    board.install()
    _, old = genuine(running)
    running.publish("1.1", 11)
    running.roll_out("1.1")
    board.run(lambda s: s.active is not None and s.active.release == "1.1" and settled(s))
    offer(running, old)
    board.rest()
    assert board.state.active is not None
    assert board.state.active.release == "1.1"


@pytest.mark.parametrize(
    "broken",
    [
        {},
        {"payload": "!!", "payloadType": "x", "signatures": []},
        {"signatures": "none"},
        {"a": []},
    ],
)
def test_junk_instead_of_an_assignment(
    running: World, board: SimBoard, waiting: Assignment, broken: dict[str, Any]
) -> None:
    offer(running, broken)
    board.rest()
    assert as_it_was(board)


def test_one_flipped_byte_in_the_servers_store(
    running: World, board: SimBoard, waiting: Assignment
) -> None:
    folder = running.home / "builds" / "1.1" / "x86-onnxruntime"
    digest = sha256_hex((folder / "model.onnx").read_bytes())
    stored = running.home / "server" / "artifacts" / digest[:2] / digest
    body = bytearray(stored.read_bytes())
    body[len(body) // 2] ^= 1
    stored.write_bytes(body)
    state = board.run(refused)
    assert state.deployment is not None
    assert (state.deployment.phase, state.deployment.verdict.code) == (Phase.REFUSED, "trust")
    assert "altered" in state.deployment.verdict.reason
    assert not (board.folder / "state" / "blobs" / digest).exists()
    assert as_it_was(board)
    running.tick()
    assert running.operator.rollouts()[0].state == "halted"


def test_one_flipped_byte_in_a_manifest(
    running: World, board: SimBoard, waiting: Assignment
) -> None:
    assert waiting.manifest is not None
    digest = waiting.manifest.sha256
    stored = running.home / "server" / "artifacts" / digest[:2] / digest
    stored.write_bytes(stored.read_bytes().replace(b'"1.1"', b'"9.9"'))
    state = board.run(refused)
    assert state.deployment is not None
    assert (state.deployment.phase, state.deployment.verdict.code) == (Phase.REFUSED, "trust")
    assert as_it_was(board)


def test_director_and_image_repository_must_speak_of_the_same_bytes(
    running: World, board: SimBoard, waiting: Assignment
) -> None:
    assert waiting.manifest is not None
    other = replace(waiting.manifest, sha256="a" * 64)
    offer(running, sealed(running, replace(waiting, manifest=other)))
    state = board.run(refused)
    assert state.deployment is not None
    assert "disagree" in state.deployment.verdict.reason
    assert as_it_was(board)


@pytest.mark.parametrize(
    "path",
    ["models/shapes/6.6/x86-onnxruntime/manifest.json", "../../etc/passwd", "director.json", "x"],
)
def test_what_the_builders_did_not_sign_is_not_installed(
    running: World, board: SimBoard, waiting: Assignment, path: str
) -> None:
    """A taken-over server names something of its own."""
    body = b"{}"
    ref = ManifestRef(path=path, sha256=sha256_hex(body), length=len(body))
    offer(running, sealed(running, replace(waiting, manifest=ref)))
    state = board.run(refused)
    assert state.deployment is not None
    assert (state.deployment.phase, state.deployment.verdict.code) == (Phase.REFUSED, "trust")
    assert as_it_was(board)


def test_a_build_of_another_class_is_refused(running: World, board: SimBoard) -> None:
    board.install()
    running.publish("1.1", 11, classes=("x86-openvino",))
    other = running.enrol("cam-2", "x86-openvino")
    running.roll_out("1.1")
    other.poll()
    assert other.assignment is not None
    mine, _ = genuine(running)
    forged = replace(
        mine, manifest=other.assignment.manifest, deployment="de-x", counter=mine.counter + 1
    )
    offer(running, sealed(running, forged))
    state = board.run(
        lambda s: s.deployment is not None and s.deployment.id == "de-x" and settled(s)
    )
    assert state.deployment is not None
    assert "build is for x86-openvino" in state.deployment.verdict.reason
    assert as_it_was(board)


def test_a_release_below_the_owners_floor_is_refused(running: World, board: SimBoard) -> None:
    """A taken-over server recalls a release with a hole that the owners have barred."""
    board.install()
    old, _ = genuine(running)
    policy = read_policy((running.home / "builds" / "1.0" / "policy" / "policy.json").read_bytes())
    running.publish_folder(
        write_build(
            running.home / "builds" / "1.2", "1.2", 12,
            policy=replace(policy, min_release_counter=12),
        )
    )  # fmt: skip
    running.roll_out("1.2")
    board.run(lambda s: s.active is not None and s.active.release == "1.2" and settled(s))
    now, _ = genuine(running)
    forged = replace(old, deployment="de-back", counter=now.counter + 1, intent="revert")
    offer(running, sealed(running, forged))
    state = board.run(
        lambda s: s.deployment is not None and s.deployment.id == "de-back" and settled(s)
    )
    assert state.deployment is not None
    assert "older than the policy allows" in state.deployment.verdict.reason
    assert state.active is not None
    assert state.active.release == "1.2"


def test_frozen_metadata_brings_nothing_new(
    running: World, board: SimBoard, waiting: Assignment
) -> None:
    """A server that withholds news cannot do so for longer than its timestamp lives."""
    running.context.repository._timestamp_life = timedelta(seconds=-5)
    with transaction(running.context.engine) as session:
        running.context.repository._sign_timestamp(
            session, running.context.repository._newest(session, "snapshot")
        )
    before = board.state
    board.rest()
    assert board.state.deployment == before.deployment, "the assignment is not even taken up"
    assert as_it_was(board)


def test_a_server_restored_from_backup_goes_on(running: World, board: SimBoard) -> None:
    """What the board has seen is newer than the backup; it is told anew and believes it."""
    board.install()
    running.publish("1.1", 11)
    home = running.home
    shutil.copytree(home / "server", home / "backup")
    running.roll_out("1.1")
    board.run(lambda s: s.active is not None and s.active.release == "1.1" and settled(s))
    seen = board.state.counter
    running.context.engine.dispose()
    shutil.move(home / "server", home / "lost")
    shutil.move(home / "backup", home / "server")
    with serve(home, running.trust) as (context, url):
        board.world = replace(running, context=context, url=url)
        board.run(lambda s: s.counter > seen and settled(s) and s.active.release == "1.0")
        assert board.state.deployment is not None
        assert board.state.deployment.verdict.code == "ok"


def test_another_fleets_server_is_not_listened_to(
    running: World, board: SimBoard, tmp_path: Path
) -> None:
    board.install()
    (tmp_path / "evil").mkdir()
    with world(tmp_path / "evil") as other:
        other.publish("6.6", 66)
        forged = replace(genuine(running)[0], counter=2**40, deployment="de-evil")
        offer(running, signing.seal(forged, ASSIGNMENT_TYPE, other.context.director._signer))
        before = board.state
        board.rest()
    assert board.state.counter == before.counter
    assert as_it_was(board)
