"""Enrolment, polls and reports as a hostile or unlucky board would send them."""

from __future__ import annotations

import time

import httpx
import pytest
from sqlmodel import select

from kedge_server.database import transaction
from kedge_server.devices.tables import EnrolmentTokenRow
from kedge_shared import api, signing
from kedge_shared.errors import ServiceError
from kedge_shared.phases import Phase
from kedge_shared.protocol import ENROLMENT_TYPE, Verdict
from tests.server.both import database  # noqa: F401
from tests.sim.device import SimDevice
from tests.sim.world import World, serve


def token(world: World) -> str:
    return world.operator.enrolment_tokens(api.TokenRequest())[0].token


def board(world: World, name: str = "cam-1") -> SimDevice:
    device = SimDevice(world.url, name, "x86-onnxruntime", world.trust.root)
    world.devices.append(device)
    return device


def test_a_token_enrols_one_board_once(running: World) -> None:
    once = token(running)
    assert board(running, "cam-1").enrol(once).status_code == 200
    second = board(running, "cam-2").enrol(once)
    assert second.status_code == 401
    assert "used" in second.json()["error"]
    assert [each.id for each in running.operator.devices()] == ["cam-1"]


def test_no_wrong_or_expired_token_enrols(running: World) -> None:
    assert board(running).enrol("guessed").status_code == 401
    late = token(running)
    with transaction(running.context.engine) as session:
        for row in session.exec(select(EnrolmentTokenRow)):
            row.expires = time.time() - 1
            session.add(row)
    assert board(running).enrol(late).status_code == 401
    assert running.operator.devices() == []


def test_a_name_belongs_to_its_key(running: World) -> None:
    first = board(running)
    first.enrol(token(running))
    thief = board(running)
    refused = thief.enrol(token(running))
    assert refused.status_code == 409
    assert "another key" in refused.json()["error"]
    assert first.poll().status_code == 200


def test_a_board_that_lost_its_token_enrols_again_with_its_key(running: World) -> None:
    device = board(running)
    device.enrol(token(running))
    old = device.http.headers["Authorization"]
    assert device.enrol(token(running)).status_code == 200
    stale = httpx.get(f"{running.url}/api/v1/device/poll", headers={"Authorization": old})
    assert stale.status_code == 401


def test_enrolment_must_be_signed_by_the_key_it_brings(running: World) -> None:
    device, other = board(running), signing.generate()
    device.signer, signer = other, device.signer
    once = token(running)
    body = signing.seal({"forged": True}, ENROLMENT_TYPE, signer)
    answer = httpx.post(
        f"{running.url}/api/v1/enrol", json=body, headers={"Authorization": f"Bearer {once}"}
    )
    assert answer.status_code == 400
    # The token was not spent by the forgery.
    assert device.enrol(once).status_code == 200


def test_polls_say_304_until_something_changes(running: World) -> None:
    device = running.enrol("cam-1")
    assert device.poll().status_code == 200
    unchanged = device.poll()
    assert unchanged.status_code == 304
    # Each board is sent back to its own place in the interval of 0.2 s.
    assert 0.1 <= float(unchanged.headers["x-kedge-next-poll"]) <= 0.3
    assert unchanged.headers["x-kedge-nonce"]
    running.publish("1.0", 10)
    running.roll_out("1.0")
    assert device.poll().status_code == 200
    assert device.assignment is not None
    assert device.assignment.intent == "install"
    assert device.poll().status_code == 304


def test_counters_only_grow_and_survive_a_restart_and_a_backup(running: World) -> None:
    device = running.enrol("cam-1")
    seen = []
    for at, release in enumerate(("1.0", "1.1", "1.2")):
        running.publish(release, 10 + at)
        running.roll_out(release)
        device.live()
        running.tick()
        assert device.assignment is not None
        seen.append(device.assignment.counter)
    assert seen == sorted(set(seen))
    # A database from a backup knows a lower counter; Unix time keeps the next one above.
    assert seen[0] >= int(time.time()) - 60


def test_assignments_outlive_the_server(running: World) -> None:
    device = running.enrol("cam-1")
    running.publish("1.0", 10)
    running.roll_out("1.0")
    device.poll()
    before = device.assignment
    with serve(running.home, running.trust) as (_, url):
        device.http.base_url = httpx.URL(url)
        device.etag = ""
        assert device.poll().status_code == 200
        assert device.assignment == before


def test_reports_count_once(running: World) -> None:
    device = running.enrol("cam-1")
    report = device.report(Phase.IDLE)
    assert device.send(report).json() == {"accepted": 1, "duplicates": 0}
    assert device.send(report).json() == {"accepted": 0, "duplicates": 1}
    both = device.send(report, device.report(Phase.IDLE))
    assert both.json() == {"accepted": 1, "duplicates": 1}


def test_an_older_report_moves_nothing_back(running: World) -> None:
    device = running.enrol("cam-1")
    running.publish("1.0", 10)
    rollout = running.roll_out("1.0")
    device.poll()
    early = device.report(Phase.PROBATION)
    device.send(device.report(Phase.CONFIRMED))
    device.send(early)
    (row,) = running.operator.rollout_deployments(rollout.id)
    assert row.phase is Phase.CONFIRMED
    # After a restart of the board neither: its boot is another, its deployment was final.
    device.boot = "boot-2"
    device.send(device.report(Phase.DOWNLOADING))
    (row,) = running.operator.rollout_deployments(rollout.id)
    assert row.phase is Phase.CONFIRMED


def test_reports_of_others_are_refused_whole(running: World) -> None:
    mine, other = running.enrol("cam-1"), running.enrol("cam-2")
    good = mine.report(Phase.IDLE)
    forged = mine.report(Phase.CONFIRMED, device="cam-2")
    stolen = other.report(Phase.IDLE)
    for bad in (forged, stolen):
        answer = mine.send(good, bad)
        assert answer.status_code == 400
        assert "report 1" in answer.json()["error"]
    assert mine.send(good).json()["accepted"] == 1


def test_a_report_about_anothers_deployment_changes_nothing(running: World) -> None:
    mine, other = running.enrol("cam-1"), running.enrol("cam-2")
    running.publish("1.0", 10)
    rollout = running.roll_out("1.0")
    mine.poll()
    other.poll()
    assert other.assignment is not None
    harm = Verdict(code="accuracy", cause="harm")
    mine.send(mine.report(Phase.REFUSED, harm, deployment=other.assignment.deployment))
    phases = {each.device: each.phase for each in running.operator.rollout_deployments(rollout.id)}
    assert phases["cam-2"] is Phase.IDLE


def test_bodies_have_limits(running: World) -> None:
    device = running.enrol("cam-1")
    huge = device.http.post("/api/v1/device/reports", content=b"[" + b" " * 2**20 + b"]")
    assert huge.status_code == 413
    many = device.send(*[device.report(Phase.IDLE) for _ in range(51)])
    assert many.status_code == 400
    deep = device.http.post("/api/v1/device/reports", content=b"[" * 100_000)
    assert deep.status_code == 400


def test_tokens_do_not_cross_roles(running: World) -> None:
    device = running.enrol("cam-1")
    assert device.http.get("/api/v1/devices").status_code == 401
    assert device.http.post("/api/v1/rollouts", json={}).status_code == 401
    operator = running.operator.http
    assert operator.get("/api/v1/device/poll").status_code == 401
    assert httpx.get(f"{running.url}/api/v1/devices").status_code == 401
    assert httpx.get(f"{running.url}/healthz").status_code == 200


def test_devices_are_found_by_class_and_tag(running: World) -> None:
    running.enrol("cam-1", tags={"site": "harbour"})
    running.enrol("cam-2", "x86-openvino", tags={"site": "yard"})
    found = running.operator.devices({"tag": "site:harbour"})
    assert [each.id for each in found] == ["cam-1"]
    assert [each.id for each in running.operator.devices({"device_class": "x86-openvino"})] == [
        "cam-2"
    ]


@pytest.mark.parametrize("count", [-3, 0, 10_000_000])
def test_tokens_are_made_in_bounds(running: World, count: int) -> None:
    with pytest.raises(ServiceError, match=r"body cannot be read: .*count"):
        running.operator.enrolment_tokens(api.TokenRequest(count=count))
