"""How boards come in, stay in and are shut out; what thieves, clones and replays get."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlmodel import select

from kedge_server.database import transaction
from kedge_server.devices import admission_routes, clones, keys, service
from kedge_server.devices.access import Access, Bearer
from kedge_server.devices.tables import PendingDeviceRow, UsedNonceRow
from kedge_server.errors import UnauthorizedError
from kedge_server.throttle import Rate
from kedge_shared import api, signing
from kedge_shared.admission import AnnouncedKeys
from kedge_shared.errors import ServiceError
from kedge_shared.phases import Phase
from tests.sim.renewing import RenewingDevice
from tests.sim.world import World, serve, world

_names = (f"cam-{number}" for number in itertools.count(1))


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """One fleet for all: each test has boards of its own."""
    with world(tmp_path_factory.mktemp("fleet")) as found:
        found.publish("1.0", 10)
        yield found


def board(world: World, name: str = "", **options: Any) -> RenewingDevice:
    name = name or next(_names)
    made = RenewingDevice(world.url, name, "x86-onnxruntime", world.trust.root, **options)
    world.devices.append(made)
    return made


def enrolled(world: World, name: str = "", **options: Any) -> RenewingDevice:
    made = board(world, name, **options)
    made.enrol(world.operator.enrolment_tokens(api.TokenRequest())[0].token)
    return made


def told(world: World, action: str) -> list[str]:
    return [each.subject for each in world.operator.newest_audit(1000) if each.action == action]


def roll_out(world: World, device: RenewingDevice) -> None:
    stage = api.StageSpec(percent=100, gate=api.GateSpec(soak_seconds=0))
    world.operator.create_rollout(
        api.RolloutSpec(
            model="shapes", release="1.0", stages=(stage,), selector=f"name=={device.name}"
        )
    )
    device.etag = ""
    device.poll()
    assert device.assignment is not None
    assert device.assignment.intent == "install"


def test_a_token_comes_for_a_signed_nonce_and_ends(running: World) -> None:
    device = enrolled(running)
    assert device.poll().status_code == 200
    assert device.renew().json()["seconds"] == 3600
    with transaction(running.context.engine) as session:
        assert len(session.exec(select(UsedNonceRow)).all()) >= 2
        keys.forget_nonces(session, time.time() + 121)
        assert session.exec(select(UsedNonceRow)).first() is None


def test_tokens_and_nonces_end_by_the_servers_clock() -> None:
    now = [1000.0]
    access = Access(b"k" * 32, 60, lambda: now[0])
    token, nonce = access.issue("cam-1", "f" * 64).token, access.nonce().nonce
    assert access.read(token) == Bearer("cam-1", "f" * 16)
    assert access.nonce_ends(nonce) == 1120
    now[0] = 1061
    assert access.read(token) is None
    now[0] = 1121
    with pytest.raises(UnauthorizedError, match="too old"):
        access.nonce_ends(nonce)


@pytest.mark.parametrize("at", [0, 5, 12, -1])
def test_no_altered_token_or_nonce_is_taken(at: int) -> None:
    access = Access(b"k" * 32, 60)
    token, nonce = access.issue("cam-1", "f" * 64).token.removeprefix("kda~"), access.nonce().nonce
    assert access.read("kda~" + flipped(token, at)) is None
    with pytest.raises(UnauthorizedError):
        access.nonce_ends(flipped(nonce, at))
    assert Access(b"o" * 32, 60).read("kda~" + token) is None
    # What proves a nonce proves no token.
    assert access.read("kda~" + nonce) is None


def flipped(text: str, at: int) -> str:
    found = list(text)
    found[at] = "0" if found[at] != "0" else "1"
    return "".join(found)


def test_a_nonce_is_used_once_and_is_nobody_elses(running: World) -> None:
    device = enrolled(running)
    sealed = device.signed(device.nonce())
    assert device.ask(sealed).status_code == 200
    replayed = device.ask(sealed)
    assert (replayed.status_code, "was used" in replayed.json()["error"]) == (401, True)
    # Of the poll's header it comes too.
    assert device.ask(device.signed(device.poll().headers["x-kedge-nonce"])).status_code == 200
    thief = signing.generate()
    assert device.ask(device.signed(device.nonce(), thief)).status_code == 401
    assert device.ask(device.signed("made up")).status_code == 401
    device.name = enrolled(running).name
    assert device.ask(device.signed(device.nonce())).status_code == 401


def test_a_forged_request_uses_no_nonce_up(running: World) -> None:
    device = enrolled(running)
    nonce = device.nonce()
    assert device.ask(device.signed(nonce, signing.generate())).status_code == 401
    assert device.ask(device.signed(nonce)).status_code == 200


def test_a_board_that_asks_without_end_is_slowed_down(running: World) -> None:
    device = enrolled(running)
    answers = [device.renew() for _ in range(25)]
    assert [each.status_code for each in answers[:15]] == [200] * 15
    assert answers[-1].status_code == 429
    assert int(answers[-1].headers["retry-after"]) >= 1


def test_a_revoked_board_is_refused_at_its_next_request_and_after_a_restart(
    running: World,
) -> None:
    device, lasting = enrolled(running), running.enrol(next(_names))
    assert device.poll().status_code == lasting.poll().status_code == 200
    for name in (device.name, lasting.name):
        assert running.operator.revoke_device(name).revoked is not None
    assert device.poll().status_code == lasting.poll().status_code == 401
    assert device.send(device.report(Phase.IDLE)).status_code == 401
    assert device.http.get("/tuf/metadata/timestamp.json").status_code == 401
    assert device.renew().status_code == 403
    token = running.operator.enrolment_tokens(api.TokenRequest())[0].token
    again = device.ask_in(token)
    assert (again.status_code, "was revoked" in again.json()["error"]) == (403, True)
    with serve(running.home, running.trust) as (_, url):
        device.http.base_url = lasting.http.base_url = httpx.URL(url)
        assert device.poll().status_code == lasting.poll().status_code == 401
        # With another key, and let in by a person, the name may come back.
        device.signer = signing.generate()
        assert device.ask_in(token).status_code == 200
        assert device.renew().status_code == 200
        assert device.poll().status_code in {200, 304}
    assert told(running, "device revoke")[:2] == [lasting.name, device.name]


def test_a_board_changes_its_key_and_the_old_one_is_worth_nothing(running: World) -> None:
    device, new = enrolled(running), signing.generate()
    roll_out(running, device)
    before, old = device.assignment, device.signer
    for signers in ([old], [new], [old, signing.generate()]):
        assert device.change_key(new, *signers).status_code in {400, 401}, "both must have signed"
    assert device.change_key(new).json()["fingerprint"] == new.public_key.keyid
    assert device.poll().status_code == 401, "a token counts no longer than its key"
    assert device.renew().status_code == 401
    device.signer = new
    assert device.renew().status_code == device.poll().status_code == 200
    assert device.assignment.device_key_id == new.public_key.keyid
    assert device.assignment.counter > before.counter
    assert device.send(device.report(Phase.IDLE)).json()["accepted"] == 1
    thief = board(running)
    thief.signer = old
    token = running.operator.enrolment_tokens(api.TokenRequest())[0].token
    assert thief.ask_in(token).status_code == 403
    assert told(running, "key change")[0] == device.name


def test_a_lasting_token_ends_with_the_key_it_was_given_for(running: World) -> None:
    older = running.enrol(next(_names))
    now = board(running, older.name)
    now.signer = older.signer
    new = signing.generate()
    assert now.change_key(new).status_code == 200
    assert older.poll().status_code == 401


def test_a_board_without_a_token_waits_for_a_person(running: World) -> None:
    device, operator = board(running, tags={"site": "yard"}), running.operator
    asked = device.ask_in()
    assert asked.status_code == 202
    fingerprint = device.signer.public_key.keyid
    assert asked.json() == {"fingerprint": fingerprint, "ask_again_seconds": 0.2}
    assert device.renew().status_code == 401
    waits = {each.name: each for each in operator.pending_devices()}[device.name]
    assert (waits.fingerprint, waits.state, waits.tags) == (
        fingerprint, "waiting", {"site": "yard"},
    )  # fmt: skip
    assert device.name not in {each.id for each in operator.devices()}
    for wrong in (fingerprint[:8], "0" * 64):
        with pytest.raises(ServiceError):
            operator.approve_device(wrong)
    assert operator.approve_device(fingerprint[:12]).device == device.name
    assert device.ask_in().json() == {"device": device.name, "token": ""}
    assert device.renew().status_code == device.poll().status_code == 200
    assert device.name not in {each.name for each in operator.pending_devices()}
    # Who asks again without a token changes nothing that is known of the board.
    device.ask_in(tags={"site": "harbour"})
    assert operator.device(device.name).tags == {"site": "yard"}


def test_a_rejected_board_is_refused_until_it_is_approved_after_all(running: World) -> None:
    device, operator = board(running), running.operator
    device.ask_in()
    fingerprint = device.signer.public_key.keyid
    assert operator.reject_device(fingerprint).state == "rejected"
    assert device.ask_in().status_code == 403
    operator.approve_device(fingerprint)
    assert device.ask_in().status_code == 200


def test_a_replayed_enrolment_opens_nothing(running: World) -> None:
    device = board(running)
    device.ask_in()
    running.operator.approve_device(device.signer.public_key.keyid)
    assert device.ask_in().json()["token"] == "", "whoever sent it again has no key to sign with"


def test_a_board_that_lost_the_answer_to_its_enrolment_is_answered_again(running: World) -> None:
    """Power went between the answer and the board's disk; after its first word it is too late."""
    device, other = board(running), board(running)
    token = running.operator.enrolment_tokens(api.TokenRequest())[0].token
    assert device.ask_in(token).status_code == device.ask_in(token).status_code == 200
    assert other.ask_in(token).status_code == 401, "another board"
    other.name = device.name
    assert other.ask_in(token).status_code == 401, "its name with another key"
    assert device.ask_in(token, renews=False).status_code == 401, "nobody is given a lasting token"
    device.renew()
    device.poll()
    with transaction(running.context.engine) as session:
        service.write_seen(session, running.context.index.take_seen())
    assert device.ask_in(token).status_code == 401


def test_announced_keys_come_in_unasked_and_no_others(running: World) -> None:
    device, stranger, operator = board(running), board(running), running.operator
    device.ask_in()
    mine = device.signer.public_key.keyid
    (announced,) = operator.announce_keys(AnnouncedKeys(fingerprints=(mine,), note="lot 7"))
    assert (announced.device, announced.note) == ("", "lot 7")
    assert device.ask_in().status_code == device.renew().status_code == 200
    assert operator.announced_keys()[0].device == device.name
    # The fingerprint is computed, not believed.
    lie = signing.key_to_dict(stranger.signer.public_key) | {"keyid": mine}
    assert stranger.ask_in(public_key=lie).status_code == 400
    assert stranger.ask_in().status_code == 202
    # One key is one board, whatever it calls itself.
    device.name = next(_names)
    assert device.ask_in().status_code == 202
    operator.withdraw_key(mine)
    assert operator.announced_keys() == []


def test_the_queue_is_bounded_and_empties_itself(tmp_path: Path) -> None:
    with world(tmp_path, pending_limit=2) as running:
        boards = [board(running) for _ in range(3)]
        assert [each.ask_in().status_code for each in boards] == [202, 202, 429]
        assert boards[0].ask_in().status_code == 202, "who waits may ask again"
        with transaction(running.context.engine) as session:
            for row in session.exec(select(PendingDeviceRow)):
                row.last_asked -= 73 * 3600
                session.add(row)
        assert boards[2].ask_in().status_code == 202
        (waits,) = running.operator.pending_devices()
        assert waits.name == boards[2].name


def test_an_older_agent_without_a_token_is_refused(running: World) -> None:
    assert board(running).ask_in(renews=False).status_code == 401


def test_two_boards_with_one_key_are_told_apart_by_their_starts(running: World) -> None:
    first = enrolled(running)
    second = board(running, first.name)
    second.signer, second.run = first.signer, "run-2"
    roll_out(running, first)
    assert first.assignment is not None
    second.renew()
    assert running.operator.device(first.name).suspected_clone is None, "a restart looks like that"
    first.renew()
    found = running.operator.device(first.name)
    assert found.suspected_clone is not None
    assert "in turn" in found.suspicion
    assert told(running, "suspected clone")[0] == first.name
    first.etag = ""
    first.poll()
    assert first.assignment.intent == "hold"
    running.operator.clear_device(first.name)
    first.etag = ""
    first.poll()
    assert first.assignment.intent == "install"


def test_two_boards_with_one_key_are_told_apart_by_their_reports(running: World) -> None:
    first = enrolled(running)
    report = first.report(Phase.IDLE)
    first.seq -= 1
    resent, other = first.report(Phase.IDLE, lost=3), None
    first.send(report)
    first.send(resent)
    assert running.operator.device(first.name).suspected_clone is None, "sent again, it is the same"
    first.seq -= 1
    other = first.report(Phase.IDLE, release="9.9")
    assert first.send(other).json() == {"accepted": 0, "duplicates": 1}
    assert "came twice, and differs" in running.operator.device(first.name).suspicion


def test_a_clone_is_only_listed_where_the_policy_says_so(tmp_path: Path) -> None:
    with world(tmp_path, clones="list") as running:
        device = enrolled(running)
        running.publish("1.0", 10)
        roll_out(running, device)
        for run in ("run-2", "run-1"):
            device.run = run
            device.renew()
        assert running.operator.device(device.name).suspected_clone is not None
        device.etag = ""
        device.poll()
        assert device.assignment is not None
        assert device.assignment.intent == "install"


def test_programs_of_one_board_start_for_themselves(running: World) -> None:
    device = enrolled(running)
    for program, run in (("bench-worker", "b-1"), ("updater", "run-1"), ("bench-worker", "b-1")):
        with transaction(running.context.engine) as session:
            clones.started(session, service.find(session, device.name), program, run)
    assert device.renew().is_success
    assert running.operator.device(device.name).suspected_clone is None


def test_strangers_ask_no_faster_than_they_may(
    running: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(admission_routes, "_ASKING", Rate(2, 3600.0))
    device = board(running)
    answers = [device.ask_in() for _ in range(3)]
    assert [each.status_code for each in answers] == [202, 202, 429]
    assert int(answers[-1].headers["retry-after"]) > 60
    token = running.operator.enrolment_tokens(api.TokenRequest())[0].token
    assert device.ask_in(token).status_code == 200, "who has a token is no stranger"
