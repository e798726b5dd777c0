"""Boards of two sites, a release, and people of every kind around one server."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import httpx
import pytest

from kedge_shared import api
from kedge_shared.accounts import (
    HEADER_CSRF,
    ApiTokenRequest,
    Login,
    UserRequest,
)
from kedge_shared.errors import ServiceError
from kedge_shared.operator_client import OperatorClient
from tests.sim.world import TOKEN, World, world

PASSWORD = "correct horse battery"


_clients: list[OperatorClient] = []


@contextmanager
def staffed(home: Path) -> Iterator[World]:
    """Runs a server with everybody on it."""
    with world(home) as found:
        found.publish("1.0", 10)
        for at, site in enumerate("aab"):
            found.enrol(f"cam-{at}", tags={"site": site})
        with OperatorClient(found.url, TOKEN) as desk:
            for name, role in (
                ("vera", "viewer"), ("otto", "operator"), ("anna", "approver"),
                ("ben", "approver"), ("ada", "admin"), ("temp", "viewer"),
            ):  # fmt: skip
                desk.add_user(UserRequest(name=name, roles=(role,), password=PASSWORD))  # type: ignore[arg-type]
            desk.add_user(UserRequest(name="both", roles=("operator", "approver")))
            desk.add_user(
                UserRequest(name="sita", roles=("operator", "approver"), scope="tag.site==a")
            )
        yield found
        for each in _clients:
            each.http.close()


def client_of(fleet: World, token: str) -> OperatorClient:
    _clients.append(OperatorClient(fleet.url, token))
    return _clients[-1]


def acting(
    fleet: World, user: str, *roles: str, scope: str = "", name: str = "t"
) -> OperatorClient:
    """Returns a client with a token of a user's."""
    with OperatorClient(fleet.url, TOKEN) as desk:
        held = {each.name: each.roles for each in desk.users()}[user]
        asked = ApiTokenRequest(name=name, roles=roles or held, user=user, scope=scope)  # type: ignore[arg-type]
        return client_of(fleet, desk.make_api_token(asked).token)


def status_of(refused: pytest.ExceptionInfo[ServiceError]) -> int | None:
    return refused.value.status


def spec(**changes: object) -> api.RolloutSpec:
    stage = api.StageSpec(percent=100, gate=api.GateSpec(soak_seconds=0))
    return replace(
        api.RolloutSpec(model="shapes", release="1.0", stages=(stage,)),
        **changes,  # type: ignore[arg-type]
    )


def logged_in(fleet: World, name: str, password: str = PASSWORD) -> OperatorClient:
    client = client_of(fleet, "")
    client.log_in(Login(name=name, password=password))
    return client


def desk_audit(fleet: World) -> list[tuple[str, str]]:
    with OperatorClient(fleet.url, TOKEN) as desk:
        return [(each.actor, each.action) for each in desk.newest_audit(1000)]


@contextmanager
def browser(fleet: World, name: str, password: str = PASSWORD) -> Iterator[httpx.Client]:
    """Logs in by the form; bears the header that console.js would add."""
    headers = {"Accept": "text/html"}
    with httpx.Client(base_url=fleet.url, timeout=60, headers=headers) as client:
        answer = client.post("/login", data={"name": name, "password": password})
        assert answer.status_code == 303, answer.text
        found = re.search(r'name="kedge-csrf" content="([0-9a-f]+)"', client.get("/settings").text)
        assert found is not None
        client.headers[HEADER_CSRF] = found[1]
        yield client
