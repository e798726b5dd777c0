"""Logging in: cookies, passwords, and how often it may be tried."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator

import httpx
import pytest
from sqlmodel import select

from kedge_server.accounts import logins, service
from kedge_server.accounts.tables import LoginSessionRow
from kedge_server.app import create_app
from kedge_server.database import transaction
from kedge_server.throttle import Rate, Throttle, network
from kedge_shared.accounts import (
    HEADER_CSRF,
    PasswordChange,
    UserRequest,
)
from kedge_shared.errors import InputError, ServiceError
from kedge_shared.operator_client import OperatorClient
from tests.server.people import PASSWORD, desk_audit, logged_in, staffed, status_of
from tests.sim.world import TOKEN, World


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with staffed(tmp_path_factory.mktemp("fleet")) as found:
        yield found


# Sessions


def test_a_session_is_a_cookie_that_scripts_cannot_read_and_changes_want_more(
    fleet: World,
) -> None:
    answer = httpx.post(
        f"{fleet.url}/api/v1/session", json={"name": "otto", "password": PASSWORD}, timeout=60
    )
    assert answer.status_code == 201
    cookie = answer.headers["set-cookie"]
    assert cookie.startswith("kedge-session=")
    for each in ("HttpOnly", "SameSite=strict", "Path=/"):
        assert each in cookie
    assert "Secure" not in cookie, "this machine alone speaks plain HTTP"
    with httpx.Client(base_url=fleet.url, cookies=answer.cookies, timeout=60) as browser:
        assert browser.get("/api/v1/devices").status_code == 200
        wanted = {"count": 1}
        for headers in ({}, {HEADER_CSRF: "0" * 64}, {HEADER_CSRF: b"\xc3\xa9"}):
            forged = browser.post("/api/v1/enrolment-tokens", json=wanted, headers=headers)
            assert (forged.status_code, HEADER_CSRF in forged.json()["error"]) == (403, True)
        good = {HEADER_CSRF: browser.get("/api/v1/session").json()["csrf"]}
        assert browser.post("/api/v1/enrolment-tokens", json=wanted, headers=good).is_success
        assert browser.delete("/api/v1/session", headers=good).status_code == 204
    stale = httpx.get(f"{fleet.url}/api/v1/devices", cookies=answer.cookies, timeout=60)
    assert stale.status_code == 401


def test_behind_tls_the_cookie_is_bound_to_it(fleet: World) -> None:
    async def work() -> None:
        transport = httpx.ASGITransport(create_app(fleet.context))
        base = "https://kedge.example"
        async with httpx.AsyncClient(transport=transport, base_url=base, timeout=60) as browser:
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
                f"{fleet.url}/api/v1/session", json={"name": name, "password": password}, timeout=60
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
    answers = [httpx.post(f"{fleet.url}/api/v1/session", json=body, timeout=60) for _ in range(11)]
    assert [each.status_code for each in answers[:10]] == [401] * 10
    assert answers[-1].status_code == 429
    assert 1 <= int(answers[-1].headers["retry-after"]) <= 60
    assert ("server", "login refused") in desk_audit(fleet)
