"""``/settings/users``: who there is, what they may do."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, Form, Query, Request, Response

from kedge_server.accounts import routes as accounts
from kedge_server.accounts import service
from kedge_server.auth import MayAccounts
from kedge_server.console import render
from kedge_server.console.route import ConsoleRoute
from kedge_server.console.settings import finding, forms
from kedge_server.context import Services
from kedge_server.database import now, transaction
from kedge_shared.accounts import PASSWORD_LEAST, PasswordChange, UserChange, UserRequest

router = APIRouter(prefix="/settings/users", route_class=ConsoleRoute)
Deed = Literal["disable", "enable"]


@router.get("")
def show_all(
    request: Request, services: Services, who: MayAccounts,
    after: Annotated[str, Query(max_length=64)] = "",
) -> Response:  # fmt: skip
    """Lists users."""
    with transaction(services.engine) as session:
        users, following = finding.users(session, after)
    return render.page(
        request, who, "settings/users.html", users=users, following=following, first=not after,
        roles=forms.ROLES, words=forms.ROLE_WORDS, least=PASSWORD_LEAST, tab="users",
    )  # fmt: skip


@router.post("")
def add(
    request: Request, services: Services, who: MayAccounts, name: forms.Short,
    roles: forms.Names = [], scope: forms.Scope = "", password: forms.Secret = "",  # noqa: B006
) -> Response:  # fmt: skip
    """Makes a user."""
    asked = forms.request_of(
        UserRequest, name=name, roles=forms.roles_of(roles), scope=scope,
        password=password or None,
    )  # fmt: skip
    with transaction(services.engine) as session:
        service.add_user(session, asked, str(who))
    return render.go(request, f"/settings/users/{name}")


@router.get("/{user}")
def show(user: str, request: Request, services: Services, who: MayAccounts) -> Response:
    """Shows a user and their tokens."""
    with transaction(services.engine) as session:
        found = service.user_info(service.find_user(session, user))
        tokens, more = finding.tokens_of(session, user)
        at = now(session)
        held = finding.reaches(session, user, at)
    return render.page(
        request, who, "settings/user.html", user=found, tokens=tokens, more=more, at=at, held=held,
        roles=forms.ROLES, words=forms.ROLE_WORDS, least=PASSWORD_LEAST, tab="users", confirm=True,
    )  # fmt: skip


@router.post("/{user}/change/confirm")
def confirm_change(
    user: str, services: Services, _: MayAccounts, roles: forms.Names = [],  # noqa: B006
    scope: forms.Scope = "",
) -> Response:  # fmt: skip
    """Says what a change of roles and scope would do."""
    wanted = forms.roles_of(roles)
    with transaction(services.engine) as session:
        found = service.user_info(service.find_user(session, user))
        held = finding.reaches(session, user, now(session))
    return render.part(
        "settings/change.html", user=found, roles=wanted, scope=scope, held=held,
        gains=[each for each in wanted if each not in found.roles],
        loses=[each for each in found.roles if each not in wanted],
    )  # fmt: skip


@router.post("/{user}/change")
def change(
    user: str, request: Request, services: Services, who: MayAccounts,
    roles: forms.Names = [], scope: forms.Scope = "",  # noqa: B006
) -> Response:  # fmt: skip
    """Sets roles and scope."""
    wanted = forms.request_of(UserChange, roles=forms.roles_of(roles), scope=scope)
    with transaction(services.engine) as session:
        service.change_user(session, user, wanted, str(who))
    return render.go(request, f"/settings/users/{user}")


@router.get("/{user}/confirm/{deed}")
def confirm(user: str, deed: Deed, services: Services, _: MayAccounts) -> Response:
    """Says what disabling a user, or enabling one, means."""
    with transaction(services.engine) as session:
        service.find_user(session, user)
        held = finding.reaches(session, user, now(session))
    return render.part("settings/confirm.html", user=user, deed=deed, held=held)


@router.post("/{user}/disable")
def disable(user: str, request: Request, services: Services, who: MayAccounts) -> Response:
    """Lets a user in no more."""
    with transaction(services.engine) as session:
        service.disable(session, user, str(who))
    return render.go(request, f"/settings/users/{user}")


@router.post("/{user}/enable")
def enable(user: str, request: Request, services: Services, who: MayAccounts) -> Response:
    """Lets a disabled user in again."""
    with transaction(services.engine) as session:
        service.enable(session, user, str(who))
    return render.go(request, f"/settings/users/{user}")


@router.post("/{user}/password")
def password(
    user: str, request: Request, services: Services, who: MayAccounts,
    password: Annotated[str, Form(max_length=256)],
) -> Response:  # fmt: skip
    """Sets a user's password and ends their sessions."""
    change = forms.request_of(PasswordChange, password=password)
    accounts.set_password(services, user, change, who)
    return render.go(request, f"/settings/users/{user}")
