"""``/api/v1/session``, ``/api/v1/users``, ``/api/v1/tokens``."""

from __future__ import annotations

import time

from fastapi import APIRouter, Request, Response

from kedge_server.accounts import logins, service
from kedge_server.accounts.principal import Principal
from kedge_server.auth import Known, MayAccounts, cookie_name, session_secret
from kedge_server.bodies import BoundedRoute
from kedge_server.context import Context, Services
from kedge_server.database import transaction
from kedge_server.errors import BusyError, UnauthorizedError
from kedge_server.throttle import ACCOUNT
from kedge_shared.accounts import (
    ApiTokenInfo,
    ApiTokenMade,
    ApiTokenRequest,
    Login,
    PasswordChange,
    UserChange,
    UserInfo,
    UserRequest,
    Whoami,
)

router = APIRouter(tags=["accounts"], route_class=BoundedRoute)


@router.post("/api/v1/session", status_code=201, summary="Log in")
def log_in(login: Login, request: Request, response: Response, services: Services) -> Whoami:
    """Opens a session behind a cookie that scripts cannot read."""
    return whoami(begin_session(login, request, response, services))


@router.get("/api/v1/session", summary="Who am I?")
def show(who: Known) -> Whoami:
    """Returns who asks, by cookie or token, and what may be done."""
    return whoami(who)


@router.delete("/api/v1/session", status_code=204, response_class=Response, summary="Log out")
def log_out(request: Request, services: Services, who: Known) -> Response:
    """Ends the session of the cookie."""
    response = Response(status_code=204)
    end_session(request, response, services, who)
    return response


@router.get("/api/v1/users", summary="Every user")
def users(services: Services, _: MayAccounts) -> list[UserInfo]:
    """Returns every user, the disabled ones too."""
    with transaction(services.engine) as session:
        return service.users(session)


@router.post("/api/v1/users", status_code=201, summary="Make a user")
def add_user(asked: UserRequest, services: Services, who: MayAccounts) -> UserInfo:
    """Makes a user; its roles and scope bound what its tokens may do."""
    with transaction(services.engine) as session:
        return service.add_user(session, asked, str(who))


@router.post("/api/v1/users/{user}/change", summary="Change what a user may do")
def change_user(user: str, change: UserChange, services: Services, who: MayAccounts) -> UserInfo:
    """Sets roles, scope or both; its tokens and sessions are bound by them from now on."""
    with transaction(services.engine) as session:
        return service.change_user(session, user, change, str(who))


@router.post("/api/v1/users/{user}/disable", summary="Let a user in no more")
def disable(user: str, services: Services, who: MayAccounts) -> UserInfo:
    """Ends the user's sessions and tokens; what it did stays in the audit log under its name."""
    with transaction(services.engine) as session:
        return service.disable(session, user, str(who))


@router.post("/api/v1/users/{user}/enable", summary="Let a disabled user in again")
def enable(user: str, services: Services, who: MayAccounts) -> UserInfo:
    """Tokens that were not revoked count again; so do sessions that are not over."""
    with transaction(services.engine) as session:
        return service.enable(session, user, str(who))


@router.post("/api/v1/users/{user}/password", summary="Set a password")
def password(user: str, change: PasswordChange, services: Services, who: Known) -> UserInfo:
    """Sets one's own password, or as an administrator anybody's; ends the user's sessions."""
    return set_password(services, user, change, who)


@router.get("/api/v1/tokens", summary="API tokens")
def tokens(services: Services, who: Known) -> list[ApiTokenInfo]:
    """Returns one's own tokens, to administrators everybody's; never a secret."""
    with transaction(services.engine) as session:
        return service.tokens(session, who)


@router.post("/api/v1/tokens", status_code=201, summary="Make an API token")
def make_token(asked: ApiTokenRequest, services: Services, who: Known) -> ApiTokenMade:
    """Makes a token that gives no more than its maker and its user have; it is shown once."""
    with transaction(services.engine) as session:
        return service.make_token(session, asked, who)


@router.post("/api/v1/tokens/{token}/revoke", summary="Revoke an API token")
def revoke(token: str, services: Services, who: Known) -> ApiTokenInfo:
    """Refuses it from the next request on."""
    with transaction(services.engine) as session:
        return service.revoke_token(session, token, who)


def set_password(services: Context, user: str, change: PasswordChange, who: Principal) -> UserInfo:
    """Sets a password; errors as :func:`service.change_password`.

    Raises:
        BusyError: Tried too often.
    """
    # Whoever has somebody's token must not come by the password with it.
    wait = services.throttle.spend(("password", who.user), ACCOUNT, time.time())
    if wait:
        raise BusyError("too many passwords were tried", retry_after=wait)
    with transaction(services.engine) as session:
        return service.change_password(session, user, change, who)


def begin_session(
    login: Login, request: Request, response: Response, services: Context
) -> Principal:
    """Opens a session and gives its cookie with an answer; returns whose it is.

    Raises:
        UnauthorizedError: Name or password is wrong.
        BusyError: Tried too often.
    """
    hours = services.settings.session_hours
    address = request.client.host if request.client else ""
    with transaction(services.engine) as session:
        opened = logins.log_in(session, services.throttle, login, address, hours)
    if opened is None:
        raise UnauthorizedError("name or password is wrong")
    name = cookie_name(request)
    response.set_cookie(
        name, opened.secret, max_age=int(hours * 3600), path="/", httponly=True,
        samesite="strict", secure=name.startswith("__Host-"),
    )  # fmt: skip
    with transaction(services.engine) as session:
        return logins.of_session(session, opened.secret)


def end_session(request: Request, response: Response, services: Context, who: Principal) -> None:
    """Ends the session of a request's cookie, and has the browser forget it."""
    with transaction(services.engine) as session:
        logins.log_out(session, session_secret(request), who)
    response.delete_cookie(cookie_name(request), path="/", httponly=True, samesite="strict")


def whoami(who: Principal) -> Whoami:
    """Returns what somebody is told of themselves."""
    return Whoami(
        user=who.user, token=who.token, roles=who.roles,
        permissions=tuple(sorted(who.permissions)), scope=who.reach.narrowed(""), csrf=who.csrf,
        expires=who.expires,
    )  # fmt: skip
