"""Who may do what, over every route there is: a route that names nobody fails here."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from fastapi import APIRouter, FastAPI
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute
from starlette.routing import Route

from kedge_server import auth
from kedge_server.accounts.roles import GRANTS, SCOPED, Permission
from kedge_server.app import create_app
from kedge_shared.accounts import ApiTokenRequest, UserRequest
from kedge_shared.operator_client import OperatorClient
from tests.sim.world import TOKEN, World, world

#: What a route asks for: a permission, a board's token ("device"), either ("device or fleet.read"),
#: or nothing ("public": it looks for itself). Written down here a second time, on purpose.
ROUTES = {
    "DELETE /api/v1/session": "accounts.self",
    "DELETE /api/v1/webhooks/{webhook}": "webhooks.manage",
    "GET /api/v1/announced-keys": "devices.enrol",
    "GET /api/v1/artifacts/{sha256}": "device or fleet.read",
    "GET /api/v1/audit": "audit.read",
    "GET /api/v1/audit/after/{entry}": "audit.read",
    "GET /api/v1/bench/jobs": "bench.run",
    "GET /api/v1/bench/jobs/{job}": "bench.run",
    "GET /api/v1/device/poll": "device",
    "GET /api/v1/devices": "fleet.read",
    "GET /api/v1/devices/{device}": "fleet.read",
    "GET /api/v1/devices/{device}/assignment": "fleet.read",
    "GET /api/v1/devices/{device}/attestations": "fleet.read",
    "GET /api/v1/devices/{device}/deployments": "fleet.read",
    "GET /api/v1/events": "fleet.watch",
    "GET /api/v1/events/recent": "fleet.watch",
    "GET /api/v1/fleet": "fleet.read",
    "GET /api/v1/pending-devices": "devices.enrol",
    "GET /api/v1/releases": "fleet.read",
    "GET /api/v1/releases/{model}/{release}": "fleet.read",
    "GET /api/v1/repository": "fleet.read",
    "GET /api/v1/rollouts": "fleet.read",
    "GET /api/v1/rollouts/{rollout}": "fleet.read",
    "GET /api/v1/rollouts/{rollout}/deployments": "fleet.read",
    "GET /api/v1/rollouts/{rollout}/replay": "fleet.read",
    "GET /api/v1/session": "accounts.self",
    "GET /api/v1/telemetry": "fleet.watch",
    "GET /api/v1/tokens": "accounts.self",
    "GET /api/v1/users": "accounts.manage",
    "GET /api/v1/webhooks": "webhooks.manage",
    "GET /api/v1/webhooks/{webhook}/deliveries": "webhooks.manage",
    "GET /healthz": "public",
    "GET /metrics": "public",
    "GET /tuf/metadata/{name}": "device or fleet.read",
    "GET /tuf/targets/{path:path}": "device or fleet.read",
    "HEAD /api/v1/artifacts/{sha256}": "device or fleet.read",
    "POST /api/v1/announced-keys": "devices.enrol",
    "POST /api/v1/announced-keys/{fingerprint}/withdraw": "devices.enrol",
    "POST /api/v1/bench/jobs": "bench.run",
    "POST /api/v1/bench/jobs/{job}/withdraw": "bench.run",
    "POST /api/v1/device-tags": "devices.manage",
    "POST /api/v1/device/bench/claim": "device",
    "POST /api/v1/device/bench/jobs/{job}/renew": "device",
    "POST /api/v1/device/bench/results": "device",
    "POST /api/v1/device/key": "public",
    "POST /api/v1/device/nonce": "public",
    "POST /api/v1/device/reports": "device",
    "POST /api/v1/device/token": "public",
    "POST /api/v1/devices/{device}/clear": "devices.manage",
    "POST /api/v1/devices/{device}/revoke": "devices.manage",
    "POST /api/v1/enrol": "public",
    "POST /api/v1/enrolment-tokens": "devices.enrol",
    "POST /api/v1/pending-devices/{fingerprint}/approve": "devices.enrol",
    "POST /api/v1/pending-devices/{fingerprint}/reject": "devices.enrol",
    "POST /api/v1/repository/metadata": "releases.publish",
    "POST /api/v1/rollouts": "rollouts.run",
    "POST /api/v1/rollouts/plan": "rollouts.run",
    "POST /api/v1/rollouts/{rollout}/approve": "rollouts.approve",
    "POST /api/v1/rollouts/{rollout}/resume": "rollouts.run",
    "POST /api/v1/rollouts/{rollout}/retry": "rollouts.run",
    "POST /api/v1/rollouts/{rollout}/{action}": "rollouts.stop",
    "POST /api/v1/session": "public",
    "POST /api/v1/tokens": "accounts.self",
    "POST /api/v1/tokens/{token}/revoke": "accounts.self",
    "POST /api/v1/users": "accounts.manage",
    "POST /api/v1/users/{user}/change": "accounts.manage",
    "POST /api/v1/users/{user}/disable": "accounts.manage",
    "POST /api/v1/users/{user}/enable": "accounts.manage",
    "POST /api/v1/users/{user}/password": "accounts.self",
    "POST /api/v1/webhooks": "webhooks.manage",
    "POST /api/v1/webhooks/deliveries/{delivery}/redeliver": "webhooks.manage",
    "POST /api/v1/webhooks/{webhook}/enable": "webhooks.manage",
    "POST /api/v1/webhooks/{webhook}/test": "webhooks.manage",
    "PUT /api/v1/artifacts/{sha256}": "releases.publish",
}

#: The console's pages and what is done on them: each asks for what the API's route asks for.
CONSOLE = {
    "GET /": "fleet.read",
    "GET /audit": "audit.read",
    "GET /console/assets/{digest}/{name:path}": "public",
    "GET /console/devices/count": "fleet.read",
    "GET /console/language": "fleet.read",
    "GET /devices": "fleet.read",
    "GET /devices/{device}": "fleet.read",
    "GET /devices/{device}/confirm/{action}": "fleet.read",
    "GET /enrolments": "devices.enrol",
    "GET /login": "public",
    "GET /models": "fleet.read",
    "GET /models/{model}": "fleet.read",
    "GET /models/{model}/compare": "fleet.read",
    "GET /models/{model}/releases/{release}": "fleet.read",
    "GET /models/{model}/releases/{release}/layers": "fleet.read",
    "GET /rollouts": "fleet.read",
    "GET /rollouts/new": "rollouts.run",
    "GET /rollouts/{rollout}": "fleet.read",
    "GET /rollouts/{rollout}/confirm/{action}": "fleet.read",
    "GET /rollouts/{rollout}/left-out": "fleet.read",
    "GET /settings": "accounts.self",
    "GET /settings/tokens/{token}/confirm": "accounts.self",
    "GET /settings/users": "accounts.manage",
    "GET /settings/users/{user}": "accounts.manage",
    "GET /settings/users/{user}/confirm/{deed}": "accounts.manage",
    "GET /settings/webhooks": "webhooks.manage",
    "GET /settings/webhooks/{webhook}": "webhooks.manage",
    "GET /settings/webhooks/{webhook}/confirm": "webhooks.manage",
    "GET /trust": "fleet.read",
    "POST /audit/check": "audit.read",
    "POST /console/filters": "fleet.read",
    "GET /console/tags/confirm": "devices.manage",
    "POST /console/tags": "devices.manage",
    "POST /devices/{device}/clear": "devices.manage",
    "POST /devices/{device}/revoke": "devices.manage",
    "POST /enrolments/tokens": "devices.enrol",
    "POST /enrolments/{fingerprint}/approve": "devices.enrol",
    "POST /enrolments/{fingerprint}/reject": "devices.enrol",
    "POST /login": "public",
    "POST /logout": "accounts.self",
    "POST /rollouts": "rollouts.run",
    "POST /rollouts/new/preview": "rollouts.run",
    "POST /rollouts/new/stages": "rollouts.run",
    "POST /rollouts/{rollout}/approve": "rollouts.approve",
    "POST /rollouts/{rollout}/halt": "rollouts.stop",
    "POST /rollouts/{rollout}/pause": "rollouts.stop",
    "POST /rollouts/{rollout}/resume": "rollouts.run",
    "POST /rollouts/{rollout}/retry": "rollouts.run",
    "POST /rollouts/{rollout}/stop": "rollouts.stop",
    "POST /settings/password": "accounts.self",
    "POST /settings/tokens": "accounts.self",
    "POST /settings/tokens/{token}/revoke": "accounts.self",
    "POST /settings/users": "accounts.manage",
    "POST /settings/users/{user}/change": "accounts.manage",
    "POST /settings/users/{user}/change/confirm": "accounts.manage",
    "POST /settings/users/{user}/disable": "accounts.manage",
    "POST /settings/users/{user}/enable": "accounts.manage",
    "POST /settings/users/{user}/password": "accounts.manage",
    "POST /settings/webhooks": "webhooks.manage",
    "POST /settings/webhooks/{webhook}/deliveries/{delivery}/redeliver": "webhooks.manage",
    "POST /settings/webhooks/{webhook}/enable": "webhooks.manage",
    "POST /settings/webhooks/{webhook}/remove": "webhooks.manage",
    "POST /settings/webhooks/{webhook}/test": "webhooks.manage",
}

#: The roles, a second time too.
MAY = {
    "viewer": {"accounts.self", "fleet.read", "fleet.watch"},
    "operator": {
        "accounts.self", "bench.run", "devices.enrol", "devices.manage", "fleet.read",
        "fleet.watch", "releases.publish", "rollouts.run", "rollouts.stop",
    },
    "approver": {
        "accounts.self", "audit.read", "fleet.read", "fleet.watch", "rollouts.approve",
        "rollouts.stop",
    },
    "admin": {
        "accounts.manage", "accounts.self", "audit.read", "bench.run", "devices.enrol",
        "devices.manage", "fleet.read", "fleet.watch", "releases.publish", "rollouts.approve",
        "rollouts.run", "rollouts.stop", "webhooks.manage",
    },
}  # fmt: skip
#: Confined to a part of the fleet, an administrator may do no more than this.
CONFINED = {
    "accounts.self", "devices.manage", "fleet.read", "rollouts.approve", "rollouts.run",
    "rollouts.stop",
}  # fmt: skip
BEARERS = ["nobody", "device", "confined", *MAY]


def may(bearer: str, wanted: str) -> bool:
    if wanted == "public":
        return True
    if bearer == "device":
        return wanted.startswith("device") and "." not in wanted.partition(" ")[0]
    granted = CONFINED if bearer == "confined" else MAY.get(bearer, set())
    return wanted.removeprefix("device or ") in granted


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with world(tmp_path_factory.mktemp("fleet")) as found:
        yield found


@pytest.fixture(scope="module")
def tokens(fleet: World) -> dict[str, str]:
    found = {"nobody": "", "device": fleet.enrol("cam-1").http.headers["Authorization"]}
    with OperatorClient(fleet.url, TOKEN) as desk:
        for role in (*MAY, "confined"):
            roles, scope = (("admin",), "tag.site==a") if role == "confined" else ((role,), "")
            name = f"a-{role}"
            desk.add_user(UserRequest(name=name, roles=roles, scope=scope))  # type: ignore[arg-type]
            asked = ApiTokenRequest(name="t", roles=roles, user=name)  # type: ignore[arg-type]
            found[role] = f"Bearer {desk.make_api_token(asked).token}"
    return found


#: The description of the interface, and what shows it.
DESCRIPTION = {"/docs", "/docs/start.js", "/docs/{name}", "/openapi.json"}


def routes(within: FastAPI | APIRouter) -> Iterator[tuple[str, str, Route]]:
    """Yields every route, also those that are not FastAPI's."""
    for each in within.routes:
        included = getattr(each, "original_router", None)
        if included is not None:
            yield from routes(included)
        elif isinstance(each, Route) and each.path not in DESCRIPTION:
            for method in each.methods or ():
                yield method, each.path, each


def asks_for(dependant: Dependant) -> set[str]:
    """Returns what the dependencies of a route ask for."""
    found = set()
    for each in dependant.dependencies:
        if each.call in auth.PERMISSIONS:
            found.add(auth.PERMISSIONS[each.call].value)
        elif each.call is auth.device:
            found.add("device")
        elif each.call is auth.anyone:
            found.add("device or fleet.read")
        else:
            found |= asks_for(each)
    return found


def test_every_route_names_who_may_ask(fleet: World) -> None:
    found = {}
    for method, path, route in routes(create_app(fleet.context).app.app):
        asked = asks_for(route.dependant) if isinstance(route, APIRoute) else set()
        assert len(asked) <= 1, path
        # The poll looks its board up without FastAPI's dependencies, which would cost more than it.
        default = "device" if path == "/api/v1/device/poll" else "public"
        found[f"{method} {path}"] = next(iter(asked), default)
    assert found == ROUTES | CONSOLE


def test_the_roles_are_as_they_were_written_down() -> None:
    assert {role: {each.value for each in granted} for role, granted in GRANTS.items()} == MAY
    assert {each.value for each in SCOPED} == CONFINED


@pytest.mark.parametrize("bearer", BEARERS)
def test_who_may_what(fleet: World, tokens: dict[str, str], bearer: str) -> None:
    """Everybody asks every route for nonsense; only those who may are told that it is."""
    headers = {"Authorization": tokens[bearer]} if tokens[bearer] else {}
    wrong = []
    with httpx.Client(base_url=fleet.url, headers=headers, timeout=60) as client:
        for route, wanted in (ROUTES | CONSOLE).items():
            method, path = route.split()
            path = re.sub(r"\{[^}]*\}", "0", path.replace("{action}", "halt"))
            if wanted == "public" or route == "DELETE /api/v1/session":
                continue
            with client.stream(method, path) as answer:  # events have no end
                status = answer.status_code
            refused = status == 401 if bearer in {"nobody", "device"} else status in {401, 403}
            if refused is may(bearer, wanted):
                wrong.append(f"{route} {wanted}: {status}")
            if bearer in MAY and not may(bearer, wanted) and "." in wanted and status != 403:
                wrong.append(f"{route} {wanted}: {status}, not 403")
    assert wrong == []


def test_the_description_says_which_token_is_wanted(fleet: World) -> None:
    body = httpx.get(f"{fleet.url}/openapi.json", timeout=60).json()
    schemes = body["components"]["securitySchemes"]
    assert {(name, each["type"], each.get("in")) for name, each in schemes.items()} == {
        ("operatorToken", "http", None), ("deviceToken", "http", None),
        ("enrolmentToken", "http", None), ("session", "apiKey", "cookie"),
        ("metricsToken", "http", None),
    }  # fmt: skip
    for route, wanted in ROUTES.items():
        method, path = route.split()
        operation = body["paths"][path.replace(":path", "")][method.lower()]
        named = {name for each in operation.get("security", []) for name in each}
        if wanted == "public":
            expected = {"/api/v1/enrol": {"enrolmentToken"}, "/metrics": {"metricsToken"}}.get(
                path, set()
            )
        elif wanted == "device":
            expected = {"deviceToken"}
        else:
            expected = {"operatorToken", "session"}
            expected |= {"deviceToken"} if wanted.startswith("device or") else set()
        assert named == expected, route


def test_the_documentation_shows_the_table_of_the_code() -> None:
    text = (Path(__file__).parents[2] / "docs" / "security.md").read_text()
    rows = re.findall(r"^\| `([a-z]+\.[a-z]+)` \| [^|]+ \|(.*)\|$", text, re.MULTILINE)
    shown = {name: [cell.strip() == "x" for cell in cells.split("|")] for name, cells in rows}
    roles = ("viewer", "operator", "approver", "admin")
    assert shown == {
        each.value: [*(each in GRANTS[role] for role in roles), each in SCOPED]  # type: ignore[index]
        for each in Permission
    }
