"""The console's settings: one's own password and tokens, users, webhooks; nothing secret shows."""

from __future__ import annotations

import re
from collections.abc import Iterator

import httpx
import pytest

from kedge_server.console.settings import hooks
from kedge_shared.accounts import HEADER_CSRF
from kedge_shared.events import WebhookInfo
from tests.server.people import PASSWORD, browser, staffed
from tests.sim.world import World

HOSTILE = "<script>alert('x')</script>"


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with staffed(tmp_path_factory.mktemp("fleet")) as found:
        yield found


def test_a_token_is_shown_once_and_revoked(fleet: World, ada: httpx.Client) -> None:
    with browser(fleet, "otto") as client:
        asked = {"name": "ci", "roles": ["operator"], "days": "7", "scope": "tag.site==a"}
        made = client.post("/settings/tokens", data=asked).text
        secret = re.search(r"kdg_[\w-]+", made)
        assert secret is not None
        bearer = {"Authorization": f"Bearer {secret[0]}"}
        assert httpx.get(f"{fleet.url}/api/v1/devices", headers=bearer).status_code == 200
        page = client.get("/settings").text
        assert secret[0] not in page
        assert "tag.site==a" in page
        more = client.post("/settings/tokens", data={"name": "x", "roles": ["admin"]})
        assert more.status_code == 403
        assert client.post("/settings/tokens", data={"name": "x"}).status_code == 422
        token = re.search(r"/settings/tokens/(tk-[\w-]+)/confirm", page)
        assert token is not None
        with browser(fleet, "vera") as other:
            assert other.get(token[0]).status_code == 404
            assert other.post(f"/settings/tokens/{token[1]}/revoke").status_code == 404
        assert "Revoke otto/ci?" in client.get(token[0]).text
        client.post(f"/settings/tokens/{token[1]}/revoke")
        assert httpx.get(f"{fleet.url}/api/v1/devices", headers=bearer).status_code == 401
    assert "otto/ci" in ada.get("/audit", params={"action": "token revoke"}).text


def test_ones_password_asks_for_the_current_one_also_of_an_administrator(fleet: World) -> None:
    new = "another horse battery"
    with browser(fleet, "temp") as client:
        fields = {"current": "wrong", "password": new, "again": new}
        assert client.post("/settings/password", data=fields).status_code == 403
        differs = {**fields, "current": PASSWORD, "again": "something else here"}
        assert "differ" in client.post("/settings/password", data=differs).text
        short = {"current": PASSWORD, "password": "short", "again": "short"}
        assert client.post("/settings/password", data=short).status_code == 422
        done = client.post("/settings/password", data={**fields, "current": PASSWORD})
        assert done.headers["location"] == "/login"
        assert client.get("/settings").status_code == 303
    with browser(fleet, "temp", new):
        pass
    with browser(fleet, "ada") as client:
        assert client.post("/settings/password", data=fields).status_code == 403


def test_a_user_is_added_changed_and_disabled_with_words_before(
    fleet: World, ada: httpx.Client
) -> None:
    fields = {"name": "kim", "roles": ["viewer"], "password": PASSWORD, "scope": "tag.site==a"}
    assert ada.post("/settings/users", data=fields).status_code == 303
    assert ada.post("/settings/users", data=fields).status_code == 409
    assert ada.post("/settings/users", data={**fields, "name": HOSTILE}).status_code == 422
    faulty = {**fields, "name": "kim2", "scope": HOSTILE}
    refused = ada.post("/settings/users", data=faulty, headers={"HX-Request": "true"})
    assert refused.status_code == 422
    assert HOSTILE not in refused.text
    with browser(fleet, "kim") as client:
        words = ada.post("/settings/users/kim/change/confirm", data={"roles": ["admin"]}).text
        assert "make others administrators" in words
        assert "Is viewer no more" in words
        assert "whole fleet" in words
        assert "1 open session and 0 tokens" in words
        ada.post("/settings/users/kim/change", data={"roles": ["operator"], "scope": ""})
        assert client.get("/rollouts/new").status_code == 200
        assert "1 open session ends" in ada.get("/settings/users/kim/confirm/disable").text
        ada.post("/settings/users/kim/disable")
        assert client.get("/").status_code == 303
    assert "disabled" in ada.get("/settings/users/kim").text
    ada.post("/settings/users/kim/enable")
    ada.post("/settings/users/kim/password", data={"password": "a third horse battery"})
    with browser(fleet, "kim", "a third horse battery") as client:
        assert client.post("/settings/users/ada/disable").status_code == 403
        assert (
            client.post("/settings/webhooks", data={"url": "https://a.example"}).status_code == 403
        )
    log = ada.get("/audit", params={"actor": "ada", "subject": "kim"}).text
    for action in ("user add", "user change", "user disable", "user enable", "user password"):
        assert action in log


def test_nobody_takes_the_last_administrator_away(fleet: World, ada: httpx.Client) -> None:
    ada.post("/settings/users/admin/disable")
    refused = ada.post("/settings/users/ada/disable", headers={"HX-Request": "true"})
    assert refused.status_code == 409
    assert "last administrator" in refused.text
    ada.post("/settings/users/admin/enable")


def test_a_webhook_is_made_tested_and_removed(fleet: World, ada: httpx.Client) -> None:
    url = "https://hooks.example/T000/very-secret"
    made = ada.post("/settings/webhooks", data={"url": url, "kinds": "rollout.*, gate.failed"})
    secret = re.search(r"whsec_[\w+/=]+", made.text)
    hook = re.search(r"/settings/webhooks/(wh-[\w-]+)", made.text)
    assert secret is not None and hook is not None
    page = ada.get(hook[0]).text
    assert ada.post(f"{hook[0]}/test").status_code == 303
    page = ada.get(hook[0]).text
    assert "webhook.test" in page
    listed = ada.get("/settings/webhooks").text
    for each in (page, listed):
        assert "https://hooks.example/…" in each
        assert "very-secret" not in each
        assert secret[0] not in each
    assert "1 delivery that is on its way is thrown away" in ada.get(f"{hook[0]}/confirm").text
    ada.post(f"{hook[0]}/remove")
    assert ada.get(hook[0]).status_code == 404
    refused = ada.post("/settings/webhooks", data={"url": "https://a.example", "kinds": "what"})
    assert refused.status_code == 422


def test_a_webhooks_address_is_shown_without_what_may_be_a_secret() -> None:
    def said(url: str) -> str:
        return hooks.host(WebhookInfo(id="wh", url=url, kinds=("*",), created=0, enabled=True,
                                      failures=0))  # fmt: skip

    assert said("https://name:word@a.example:8443/x?y") == "https://a.example:8443/…"
    assert said("https://a.example/") == "https://a.example"


def test_deeds_without_the_sessions_header_are_refused(fleet: World) -> None:
    with browser(fleet, "ada") as client:
        del client.headers[HEADER_CSRF]
        for path in (
            "/settings/users", "/settings/users/vera/disable", "/settings/tokens",
            "/settings/webhooks", "/settings/password", "/audit/check",
        ):  # fmt: skip
            assert client.post(path).status_code == 403, path
