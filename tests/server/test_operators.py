"""Users, tokens, sessions, scopes and two people's yes, over a running server."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator
from dataclasses import replace

import httpx
import pytest
from sqlmodel import select

from kedge_server.accounts import logins, service
from kedge_server.accounts.tables import ApiTokenRow, LoginSessionRow
from kedge_server.app import create_app
from kedge_server.database import transaction
from kedge_server.throttle import Rate, Throttle, network
from kedge_shared import api
from kedge_shared.accounts import (
    HEADER_CSRF,
    ApiTokenRequest,
    Login,
    PasswordChange,
    UserRequest,
)
from kedge_shared.errors import InputError, ServiceError
from kedge_shared.operator_client import OperatorClient
from tests.sim.world import TOKEN, World, serve, world

PASSWORD = "correct horse battery"


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """Boards of two sites, a release, and people of every kind."""
    with world(tmp_path_factory.mktemp("fleet")) as found:
        found.publish("1.0", 10)
        for at, site in enumerate("aab"):
            found.enrol(f"cam-{at}", tags={"site": site})
        with OperatorClient(found.url, TOKEN) as desk:
            for name, role in (
                ("vera", "viewer"), ("otto", "operator"), ("anna", "approver"),
                ("ben", "approver"), ("ada", "admin"),
            ):  # fmt: skip
                desk.add_user(UserRequest(name=name, roles=(role,), password=PASSWORD))  # type: ignore[arg-type]
            desk.add_user(
                UserRequest(name="sita", roles=("operator", "approver"), scope="tag.site==a")
            )
        yield found
        for each in _clients:
            each.http.close()


_clients: list[OperatorClient] = []


def client_of(fleet: World, token: str) -> OperatorClient:
    _clients.append(OperatorClient(fleet.url, token))
    return _clients[-1]


def acting(fleet: World, user: str, *roles: str, scope: str = "") -> OperatorClient:
    """Returns a client with a token of a user's."""
    with OperatorClient(fleet.url, TOKEN) as desk:
        held = {each.name: each.roles for each in desk.users()}[user]
        asked = ApiTokenRequest(name="t", roles=roles or held, user=user, scope=scope)  # type: ignore[arg-type]
        return client_of(fleet, desk.make_api_token(asked).token)


def status_of(refused: pytest.ExceptionInfo[ServiceError]) -> int | None:
    return refused.value.status


def spec(**changes: object) -> api.RolloutSpec:
    stage = api.StageSpec(percent=100, gate=api.GateSpec(soak_seconds=0))
    return replace(
        api.RolloutSpec(model="shapes", release="1.0", stages=(stage,)),
        **changes,  # type: ignore[arg-type]
    )


# Tokens


def test_a_token_is_stored_hashed_used_revoked_and_expires(fleet: World) -> None:
    client = acting(fleet, "otto")
    secret = client.http.headers["Authorization"].split()[1]
    me = client.whoami()
    assert (me.user, me.token, me.roles) == ("otto", "t", ("operator",))
    stored = b"".join(each.read_bytes() for each in (fleet.home / "server").glob("kedge.db*"))
    assert secret.encode() not in stored
    found = client.api_tokens()[-1]
    assert found.last_used is not None
    with transaction(fleet.context.engine) as session:
        row = session.get_one(ApiTokenRow, found.id)
        row.expires = time.time() - 1
        session.add(row)
    with pytest.raises(ServiceError, match="does not take this token"):
        client.devices()
    other = acting(fleet, "otto")
    ident = other.api_tokens()[-1].id
    assert other.revoke_api_token(ident).revoked is not None
    with pytest.raises(ServiceError, match="does not take this token"):
        other.devices()


def test_nobody_makes_a_token_that_is_more_than_its_maker(fleet: World) -> None:
    with pytest.raises(ServiceError, match="more than vera may do") as refused:
        acting(fleet, "vera").make_api_token(ApiTokenRequest(name="x", roles=("operator",)))
    assert status_of(refused) == 403
    # Nor a token of somebody who is more than the token.
    with pytest.raises(ServiceError, match="more than ada may do"):
        acting(fleet, "ada", "viewer").make_api_token(ApiTokenRequest(name="x", roles=("admin",)))
    with pytest.raises(ServiceError, match="administrator's to make"):
        acting(fleet, "otto").make_api_token(
            ApiTokenRequest(name="x", roles=("viewer",), user="ada")
        )
    # Nor one that leaves its maker's scope.
    made = acting(fleet, "otto", scope="tag.site==a").make_api_token(
        ApiTokenRequest(name="x", roles=("operator",), scope="tag.site==b")
    )
    with OperatorClient(fleet.url, made.token) as wider:
        assert wider.devices() == []
        assert "site==a" in wider.whoami().scope


def test_others_tokens_are_not_there(fleet: World) -> None:
    mine, other = acting(fleet, "otto"), acting(fleet, "vera")
    ident = mine.api_tokens()[-1].id
    assert {each.user for each in other.api_tokens()} == {"vera"}
    with pytest.raises(ServiceError, match="there is no token") as refused:
        other.revoke_api_token(ident)
    assert status_of(refused) == 404
    assert mine.devices()


def test_a_user_that_is_disabled_is_out_at_once_and_the_last_admin_stays(fleet: World) -> None:
    with OperatorClient(fleet.url, TOKEN) as desk:
        desk.add_user(UserRequest(name="temp", roles=("viewer",), password=PASSWORD))
        client = acting(fleet, "temp")
        browser = logged_in(fleet, "temp")
        assert client.devices()
        desk.disable_user("temp")
        for each in (client, browser):
            with pytest.raises(ServiceError, match="does not take this token"):
                each.devices()
        with pytest.raises(InputError, match="name or password is wrong"):
            logged_in(fleet, "temp")
        with pytest.raises(ServiceError, match="there is a user temp already"):
            desk.add_user(UserRequest(name="temp", roles=("viewer",)))
        desk.enable_user("temp")
        assert client.devices()
        desk.disable_user("ada")
        with pytest.raises(ServiceError, match="last administrator") as refused:
            desk.disable_user("admin")
        assert status_of(refused) == 409
        desk.enable_user("ada")


def test_a_role_that_is_taken_away_is_taken_from_the_tokens_too(fleet: World) -> None:
    client = acting(fleet, "otto")
    with transaction(fleet.context.engine) as session:
        user = service.find_user(session, "otto")
        user.roles = json.dumps(["viewer"])
        session.add(user)
    try:
        with pytest.raises(ServiceError, match=r"devices\.enrol is needed"):
            client.enrolment_tokens(api.TokenRequest())
    finally:
        with transaction(fleet.context.engine) as session:
            user = service.find_user(session, "otto")
            user.roles = json.dumps(["operator"])
            session.add(user)


# Scopes


def test_whoever_is_confined_sees_and_acts_on_those_boards_only(fleet: World) -> None:
    sita = acting(fleet, "sita")
    assert [each.id for each in sita.devices()] == ["cam-0", "cam-1"]
    assert sita.device("cam-0").id == "cam-0"
    for act in (sita.device, sita.device_deployments, sita.device_assignment, sita.revoke_device,
                sita.clear_device):  # fmt: skip
        with pytest.raises(ServiceError, match="there is no device cam-2") as refused:
            act("cam-2")
        assert status_of(refused) == 404
    for forbidden in (
        lambda: sita.enrolment_tokens(api.TokenRequest()), sita.pending_devices,
        lambda: sita.newest_audit(10), lambda: sita.publish_metadata({}),
    ):  # fmt: skip
        with pytest.raises(ServiceError) as refused:
            forbidden()
        assert status_of(refused) == 403
    # By the token's own scope as by the user's.
    narrow = acting(fleet, "otto", scope="name==cam-2")
    assert [each.id for each in narrow.devices()] == ["cam-2"]


def test_whoever_is_confined_rolls_out_within_and_touches_no_other_rollout(fleet: World) -> None:
    sita, otto = acting(fleet, "sita"), acting(fleet, "otto")
    planned = sita.plan_rollout(spec())
    assert sorted(sum((each.devices for each in planned.stages), ())) == ["cam-0", "cam-1"]
    assert "cam-2" not in planned.skipped
    with pytest.raises(ServiceError, match="no device can take"):
        sita.create_rollout(spec(selector="tag.site==b"))
    mine = sita.create_rollout(spec())
    reached = {each.device for each in sita.rollout_deployments(mine.id)}
    assert reached == {"cam-0", "cam-1"}
    other = otto.create_rollout(spec(selector="tag.site==b"))
    assert [each.id for each in sita.rollouts()] == [mine.id]
    assert {each.id for each in otto.rollouts()} == {mine.id, other.id}
    for act in ("pause", "halt", "stop", "resume", "approve", "retry"):
        answer = sita.http.post(f"/api/v1/rollouts/{other.id}/{act}")
        assert (answer.status_code, act) == (404, act)
    for what in ("", "/deployments", "/replay"):
        assert sita.http.get(f"/api/v1/rollouts/{other.id}{what}").status_code == 404
    # A board of another site that joins is not taken along either.
    fleet.enrol("cam-9", tags={"site": "b"})
    fleet.tick()
    assert {each.device for each in sita.rollout_deployments(mine.id)} == reached
    for each in (mine, other):
        otto.http.post(f"/api/v1/rollouts/{each.id}/halt")


# Two people


def test_two_people_say_yes_and_neither_is_who_made_it(fleet: World) -> None:
    with OperatorClient(fleet.url, TOKEN) as desk:
        desk.add_user(UserRequest(name="both", roles=("operator", "approver")))
    both, anna, ben = (acting(fleet, each) for each in ("both", "anna", "ben"))
    made = both.create_rollout(spec(two_person=True, selector="tag.site==a"))
    assert (made.state, made.created_by) == ("proposed", "both/t")
    assert both.rollout_deployments(made.id) == [], "no board was told anything"
    fleet.tick()
    for mine in (both, acting(fleet, "both", "approver")):
        with pytest.raises(ServiceError, match="both made rollout") as refused:
            mine.change_rollout(made.id, "approve")
        assert status_of(refused) == 403
    assert anna.change_rollout(made.id, "approve").approvals == ("anna",)
    # Another token of one person is not another person.
    assert acting(fleet, "anna", "approver").change_rollout(made.id, "approve").approvals == (
        "anna",
    )
    assert both.rollout(made.id).state == "proposed"
    begun = ben.change_rollout(made.id, "approve")
    assert (begun.state, begun.reason) == ("running", "started: anna and ben said yes")
    assert len(both.rollout_deployments(made.id)) == 2
    said = [each for each in desk_audit(fleet) if each[1] == "rollout approval"]
    assert said[:2] == [("ben/t", "rollout approval"), ("anna/t", "rollout approval")]
    both.http.post(f"/api/v1/rollouts/{made.id}/halt")


def test_a_stage_that_asks_wants_two_people_too(fleet: World) -> None:
    otto, anna, ben = (acting(fleet, each) for each in ("otto", "anna", "ben"))
    stage = api.StageSpec(percent=100, gate=api.GateSpec(soak_seconds=0), approval=True)
    made = otto.create_rollout(spec(two_person=True, selector="name==cam-2", stages=(stage,)))
    for each in (anna, ben):
        each.change_rollout(made.id, "approve")
    device = next(each for each in fleet.devices if each.name == "cam-2")
    device.runs = ""
    device.live()
    fleet.tick()
    assert otto.rollout(made.id).stages[0].state == "asking"
    assert anna.change_rollout(made.id, "approve").stages[0].state == "asking"
    assert ben.change_rollout(made.id, "approve").state == "completed"


def test_a_proposed_rollout_can_be_dropped(fleet: World) -> None:
    otto, anna = acting(fleet, "otto"), acting(fleet, "anna")
    made = otto.create_rollout(spec(two_person=True, selector="name==cam-0"))
    assert anna.http.post(f"/api/v1/rollouts/{made.id}/halt").json()["state"] == "stopped"
    with pytest.raises(ServiceError, match="asks for nothing"):
        anna.change_rollout(made.id, "approve")


def desk_audit(fleet: World) -> list[tuple[str, str]]:
    with OperatorClient(fleet.url, TOKEN) as desk:
        return [(each.actor, each.action) for each in desk.newest_audit(1000)]


# Sessions


def logged_in(fleet: World, name: str, password: str = PASSWORD) -> OperatorClient:
    client = client_of(fleet, "")
    client.log_in(Login(name=name, password=password))
    return client


def test_a_session_is_a_cookie_that_scripts_cannot_read_and_changes_want_more(
    fleet: World,
) -> None:
    answer = httpx.post(f"{fleet.url}/api/v1/session", json={"name": "otto", "password": PASSWORD})
    assert answer.status_code == 201
    cookie = answer.headers["set-cookie"]
    assert cookie.startswith("kedge-session=")
    for each in ("HttpOnly", "SameSite=strict", "Path=/"):
        assert each in cookie
    assert "Secure" not in cookie, "this machine alone speaks plain HTTP"
    with httpx.Client(base_url=fleet.url, cookies=answer.cookies) as browser:
        assert browser.get("/api/v1/devices").status_code == 200
        wanted = {"count": 1}
        for headers in ({}, {HEADER_CSRF: "0" * 64}, {HEADER_CSRF: b"\xc3\xa9"}):
            forged = browser.post("/api/v1/enrolment-tokens", json=wanted, headers=headers)
            assert (forged.status_code, HEADER_CSRF in forged.json()["error"]) == (403, True)
        good = {HEADER_CSRF: browser.get("/api/v1/session").json()["csrf"]}
        assert browser.post("/api/v1/enrolment-tokens", json=wanted, headers=good).is_success
        assert browser.delete("/api/v1/session", headers=good).status_code == 204
    stale = httpx.get(f"{fleet.url}/api/v1/devices", cookies=answer.cookies)
    assert stale.status_code == 401


def test_behind_tls_the_cookie_is_bound_to_it(fleet: World) -> None:
    async def work() -> None:
        transport = httpx.ASGITransport(create_app(fleet.context))
        base = "https://kedge.example"
        async with httpx.AsyncClient(transport=transport, base_url=base) as browser:
            login = {"name": "otto", "password": PASSWORD}
            answer = await browser.post("/api/v1/session", json=login)
            cookie = answer.headers["set-cookie"]
            assert cookie.startswith("__Host-kedge-session=")
            assert "Secure" in cookie
            assert (await browser.get("/api/v1/session")).json()["user"] == "otto"
            # The unbound name is not looked at there: whoever can set it is not let in by it.
            secret = cookie.partition("=")[2].partition(";")[0]
            browser.cookies.clear()
            browser.cookies.set("kedge-session", secret)
            assert (await browser.get("/api/v1/session")).status_code == 401

    asyncio.run(work())


def test_a_session_ends_with_its_time_and_with_the_password(fleet: World) -> None:
    vera = logged_in(fleet, "vera")
    with pytest.raises(ServiceError, match="not the current password") as refused:
        vera.set_password("vera", PasswordChange(password="another password", current="wrong"))
    assert status_of(refused) == 403
    with pytest.raises(ServiceError, match="not yours to set"):
        vera.set_password("otto", PasswordChange(password="another password", current=PASSWORD))
    vera.set_password("vera", PasswordChange(password="another password", current=PASSWORD))
    with pytest.raises(ServiceError, match="does not take this token"):
        vera.devices()
    with pytest.raises(InputError, match="name or password is wrong"):
        logged_in(fleet, "vera")
    again = logged_in(fleet, "vera", "another password")
    with transaction(fleet.context.engine) as session:
        for row in session.exec(select(LoginSessionRow).where(LoginSessionRow.user == "vera")):
            row.expires = time.time() - 1
            session.add(row)
    with pytest.raises(ServiceError, match="does not take this token"):
        again.devices()


def test_passwords_are_stored_as_argon2id_and_short_ones_are_not_taken(fleet: World) -> None:
    with transaction(fleet.context.engine) as session:
        assert service.find_user(session, "otto").password_hash.startswith("$argon2id$")
    with OperatorClient(fleet.url, TOKEN) as desk, pytest.raises(ServiceError, match="password"):
        desk.add_user(UserRequest(name="short", roles=("viewer",), password="eleven chrs"))


def test_who_has_no_password_cannot_log_in_with_none(fleet: World) -> None:
    for name in ("sita", "nobody-there", "admin"):
        for password in ("", "nobody's password"):
            answer = httpx.post(
                f"{fleet.url}/api/v1/session", json={"name": name, "password": password}
            )
            assert answer.status_code == 401
            assert answer.json()["error"] == "name or password is wrong"


# How often it may be tried


def attempts(fleet: World, throttle: Throttle, name: str, address: str, count: int) -> int:
    """Tries a wrong password so often; returns how often it was looked at."""
    looked = 0
    for _ in range(count):
        with transaction(fleet.context.engine) as session:
            try:
                logins.Attempt(session, throttle, name, address, 1000.0)
            except logins.BusyError:
                continue
            looked += 1
    return looked


def test_guessing_is_slowed_down_by_account_and_by_address(fleet: World) -> None:
    throttle = Throttle()
    assert attempts(fleet, throttle, "anna", "198.51.100.1", 30) == 10
    assert attempts(fleet, throttle, "anna", "198.51.100.2", 5) == 0, "from elsewhere no more"
    assert attempts(fleet, throttle, "ben", "198.51.100.3", 5) == 5, "others are not held up"
    names = [f"user-{at}" for at in range(30)]
    assert sum(attempts(fleet, throttle, each, "198.51.100.4", 1) for each in names) == 20


def test_nobody_is_locked_out_for_ever(fleet: World) -> None:
    throttle = Throttle()
    with transaction(fleet.context.engine) as session:
        session.add(
            LoginSessionRow(secret_hash="h", user="anna", address=network("2001:db8::7"),
                            created=900.0, expires=950.0)
        )  # fmt: skip
    attempts(fleet, throttle, "anna", "198.51.100.1", 30)
    # From where she logged in before (her /64), strangers' attempts are not counted against her.
    assert attempts(fleet, throttle, "anna", "2001:db8::abcd", 1) == 1
    assert attempts(fleet, throttle, "anna", "2001:db8:0:1::7", 1) == 0
    # And from anywhere it is a matter of a minute.
    with transaction(fleet.context.engine) as session:
        logins.Attempt(session, throttle, "anna", "198.51.100.9", 1061.0)


def test_buckets_fill_again_and_forget_the_oldest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kedge_server.throttle._MOST_KEYS", 3)
    throttle, rate = Throttle(), Rate(2, 10.0)
    assert [throttle.spend(("a",), rate, 0) for _ in range(2)] == [0, 0]
    assert throttle.spend(("a",), rate, 4) == pytest.approx(6)
    assert throttle.spend(("a",), rate, 10.1) == 0
    throttle.give_back(("a",), rate, 10.1)
    assert throttle.spend(("a",), rate, 10.1) == 0
    for each in "bcd":
        throttle.spend((each,), rate, 11)
    assert throttle.spend(("a",), rate, 11) == 0, "what was forgotten is full"


def test_too_many_attempts_are_told_when_to_come_back(fleet: World) -> None:
    body = {"name": "ben", "password": "wrong password"}
    answers = [httpx.post(f"{fleet.url}/api/v1/session", json=body) for _ in range(11)]
    assert [each.status_code for each in answers[:10]] == [401] * 10
    assert answers[-1].status_code == 429
    assert 1 <= int(answers[-1].headers["retry-after"]) <= 60
    assert ("server", "login refused") in desk_audit(fleet)


# The first administrator


def test_the_first_token_is_the_way_back_in(fleet: World) -> None:
    with OperatorClient(fleet.url, TOKEN) as desk:
        me = desk.whoami()
        assert (me.user, me.token, me.roles) == ("admin", "first", ("admin",))
        first = next(each for each in desk.api_tokens() if each.name == "first")
        desk.revoke_api_token(first.id)
        with serve(fleet.home, fleet.trust) as (_, url):
            stays = httpx.get(f"{url}/api/v1/session", headers=desk.http.headers)
            assert stays.status_code == 401, "what was revoked stays revoked"
        other = "another-first-token"
        with serve(fleet.home, fleet.trust, operator_token=other) as (_, url):
            back = httpx.get(f"{url}/api/v1/session", headers={"Authorization": f"Bearer {other}"})
            assert back.json()["user"] == "admin"
            assert httpx.get(f"{url}/api/v1/session", headers=desk.http.headers).status_code == 401
