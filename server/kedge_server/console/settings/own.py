"""``/settings``: one's own password and API tokens."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated

from fastapi import APIRouter, Form, Request, Response

from kedge_server.accounts import routes as accounts
from kedge_server.accounts import service
from kedge_server.accounts.roles import Permission
from kedge_server.auth import Known
from kedge_server.console import render
from kedge_server.console.route import ConsoleRoute
from kedge_server.console.settings import finding, forms
from kedge_server.context import Services
from kedge_server.database import now, transaction
from kedge_shared.accounts import PASSWORD_LEAST, ApiTokenRequest, PasswordChange

router = APIRouter(prefix="/settings", route_class=ConsoleRoute)
_DAY = 86400


@router.get("")
def show(request: Request, services: Services, who: Known) -> Response:
    """Shows one's own password and tokens."""
    with transaction(services.engine) as session:
        tokens, more = finding.tokens_of(session, who.user)
        at = now(session)
    return render.page(
        request, who, "settings/own.html", tokens=tokens, more=more, at=at, tab="own",
        least=PASSWORD_LEAST, roles=who.roles, words=forms.ROLE_WORDS, confirm=True,
    )  # fmt: skip


@router.post("/password")
def password(
    request: Request, services: Services, who: Known, current: forms.Secret,
    password: forms.Secret, again: forms.Secret,
) -> Response:  # fmt: skip
    """Sets one's own password; the current one is asked for, also of an administrator."""
    change = forms.request_of(
        PasswordChange, password=forms.twice(password, again), current=current
    )
    # A browser that was left open is no reason to let its finder set the password.
    bounded = replace(who, permissions=who.permissions - {Permission.ACCOUNTS})
    accounts.set_password(services, who.user, change, bounded)
    return render.go(request, "/login")


@router.post("/tokens")
def make(
    services: Services, who: Known, name: forms.Short, roles: forms.Names = [],  # noqa: B006
    days: Annotated[int, Form(ge=1, le=366)] = 90, scope: forms.Scope = "",
) -> Response:  # fmt: skip
    """Makes a token; it is shown in this answer and nowhere else."""
    asked = forms.request_of(
        ApiTokenRequest, name=name, roles=forms.roles_of(roles), scope=scope,
        ttl_seconds=days * _DAY,
    )  # fmt: skip
    with transaction(services.engine) as session:
        made = service.make_token(session, asked, who)
    return render.part(
        "settings/made.html", what=f"Token {made.info.name}", secret=made.token, back="/settings",
        note="Keep it in a file that you alone can read, and name that file in KEDGE_TOKEN_FILE.",
    )  # fmt: skip


@router.get("/tokens/{token}/confirm")
def confirm(token: str, services: Services, who: Known) -> Response:
    """Says what revoking a token means."""
    with transaction(services.engine) as session:
        found = finding.token(session, token, who)
    return render.part("settings/revoke.html", token=found)


@router.post("/tokens/{token}/revoke")
def revoke(token: str, request: Request, services: Services, who: Known) -> Response:
    """Lets nobody in with a token any more."""
    with transaction(services.engine) as session:
        found = service.revoke_token(session, token, who)
    mine = found.user == who.user
    return render.go(request, "/settings" if mine else f"/settings/users/{found.user}")
