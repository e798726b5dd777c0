"""Who asks, and whether it is theirs to ask: the one door of every route but the poll's.

A route names what it needs by its parameter (``who: MayRun``). Whoever is confined to a part of the
fleet reaches only routes of :data:`kedge_server.accounts.roles.SCOPED`; where such a route names a
device or a rollout, that is looked at here, before the route begins.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable
from typing import Annotated

from fastapi import Depends, Request, Security
from fastapi.concurrency import run_in_threadpool
from fastapi.security import APIKeyCookie, HTTPAuthorizationCredentials, HTTPBearer
from sqlmodel import Session

from kedge_server.accounts import logins, reach
from kedge_server.accounts.principal import Principal
from kedge_server.accounts.roles import SCOPED, Permission
from kedge_server.context import Context, Services
from kedge_server.database import transaction
from kedge_server.devices.access import PREFIX, same_key
from kedge_server.errors import ForbiddenError, UnauthorizedError
from kedge_server.tokens import token_hash
from kedge_shared.accounts import HEADER_CSRF

#: The prefix binds the cookie to this host and to TLS (RFC 6265bis, section 4.1.3.2).
COOKIE, LOCAL_COOKIE = "__Host-kedge-session", "kedge-session"
_SAFE = frozenset({"GET", "HEAD", "OPTIONS"})

_operator = HTTPBearer(
    auto_error=False, scheme_name="operatorToken", description="API token: `kedge token create`."
)
_session = APIKeyCookie(
    name=COOKIE, auto_error=False, scheme_name="session",
    description=f"POST /api/v1/session. Changing requests also bear {HEADER_CSRF}.",
)  # fmt: skip
_device = HTTPBearer(
    auto_error=False, scheme_name="deviceToken",
    description="POST /api/v1/device/token, or from the enrolment of an older agent.",
)  # fmt: skip
_enrolment = HTTPBearer(
    auto_error=False, scheme_name="enrolmentToken",
    description="One-time: `kedge device token`. Without one the board waits for approval.",
)  # fmt: skip
_Bearer = HTTPAuthorizationCredentials | None
_OperatorToken = Annotated[_Bearer, Security(_operator)]
_DeviceToken = Annotated[_Bearer, Security(_device)]
_SessionCookie = Annotated[str | None, Security(_session)]
EnrolmentToken = Annotated[_Bearer, Security(_enrolment)]

#: What each dependency made by :func:`_may` asks for; the test of all routes reads it.
PERMISSIONS: dict[Callable[..., Principal], Permission] = {}


def session_secret(request: Request) -> str:
    """Returns what the cookie of a request holds; empty without one."""
    found = request.cookies.get(COOKIE, "")
    return found or (request.cookies.get(LOCAL_COOKIE, "") if _is_plain(request) else "")


def cookie_name(request: Request) -> str:
    """Returns the cookie's name: without TLS, which is this machine alone, it has no prefix."""
    return LOCAL_COOKIE if _is_plain(request) else COOKIE


def _is_plain(request: Request) -> bool:
    return request.url.scheme == "http"


def _may(permission: Permission) -> Callable[..., Principal]:
    def who_may(
        request: Request, services: Services, bearer: _OperatorToken, _cookie: _SessionCookie
    ) -> Principal:
        with transaction(services.engine) as session:
            return _admit(session, request, bearer, permission)

    PERMISSIONS[who_may] = permission
    return who_may


def _admit(
    session: Session, request: Request, bearer: _Bearer, permission: Permission
) -> Principal:
    """Returns who asks.

    Raises:
        UnauthorizedError: Nobody that is known.
        ForbiddenError: It is not theirs to do, or a foreign page had a browser ask.
        NotFoundError: It is about a board or a rollout outside of their scope.
    """
    who = _who(session, request, bearer)
    if permission not in who.permissions:
        confined = permission in who.granted and permission not in SCOPED
        why = "the whole fleet's, and this token or user is confined" if confined else "needed"
        raise ForbiddenError(f"{who}: {permission.value} is {why}", "see `kedge user list`")
    reach.check(session, who.reach, request.path_params)
    return who


def _who(session: Session, request: Request, bearer: _Bearer) -> Principal:
    if bearer is not None:
        return logins.of_token(session, bearer.credentials)
    secret = session_secret(request)
    if not secret:
        raise UnauthorizedError("no token", "send 'Authorization: Bearer TOKEN'")
    who = logins.of_session(session, secret)
    shown = request.headers.get(HEADER_CSRF, "")
    if request.method not in _SAFE and not hmac.compare_digest(shown.encode(), who.csrf.encode()):
        raise ForbiddenError(f"{HEADER_CSRF} is missing or wrong", "GET /api/v1/session has it")
    return who


def device_of(services: Context, token: str) -> str | None:
    """Returns whose token it is, or ``None``: the one place where a board's token is looked at.

    From memory, in some microseconds: the poll stands behind it. A revoked board is not in the
    index, and a token counts no longer than the key that it was given for.
    """
    if not token.startswith(PREFIX):
        return services.index.device_of(token_hash(token))
    bearer = services.access.read(token)
    if bearer is None or not same_key(bearer, services.index.key_of(bearer.device)):
        return None
    return bearer.device


def device_asking(services: Context, authorization: bytes) -> str:
    """Returns which device asks, from the header alone: what polls and reports are checked by.

    Raises:
        UnauthorizedError: No token, or no device's.
    """
    scheme, _, token = authorization.decode("latin-1").partition(" ")
    found = device_of(services, token) if scheme.lower() == "bearer" else None
    if found is None:
        raise UnauthorizedError("this token is no device's")
    return found


async def device_asking_soon(services: Context, authorization: bytes) -> str:
    """Returns which device asks, also if another server enrolled it a moment ago.

    Raises:
        UnauthorizedError: No token, or no device's.
    """
    try:
        return device_asking(services, authorization)
    except UnauthorizedError:
        await run_in_threadpool(services.follower.hurry)
    return device_asking(services, authorization)


def device(services: Services, bearer: _DeviceToken) -> str:
    """Returns which device asks.

    Raises:
        UnauthorizedError: No or an unknown token.
    """
    token = bearer.credentials if bearer is not None else ""
    found = device_of(services, token)
    if found is None and token:
        services.follower.hurry()
        found = device_of(services, token)
    if found is None:
        raise UnauthorizedError("this token is no device's")
    return found


_reads = _may(Permission.READ)


def anyone(
    request: Request, services: Services, bearer: _OperatorToken, _device: _DeviceToken,
    _cookie: _SessionCookie,
) -> str:  # fmt: skip
    """Returns who asks, a device or an operator who may look.

    Raises:
        UnauthorizedError: Neither.
        ForbiddenError: It is not theirs to see.
    """
    found = device_of(services, bearer.credentials) if bearer is not None else None
    if found is not None:
        return found
    return str(_reads(request, services, bearer, _cookie))


MayRead = Annotated[Principal, Depends(_reads)]
MayPublish = Annotated[Principal, Depends(_may(Permission.PUBLISH))]
MayEnrol = Annotated[Principal, Depends(_may(Permission.ENROL))]
MayManage = Annotated[Principal, Depends(_may(Permission.MANAGE))]
MayRun = Annotated[Principal, Depends(_may(Permission.RUN))]
MayStop = Annotated[Principal, Depends(_may(Permission.STOP))]
MayApprove = Annotated[Principal, Depends(_may(Permission.APPROVE))]
MayBench = Annotated[Principal, Depends(_may(Permission.BENCH))]
MayAudit = Annotated[Principal, Depends(_may(Permission.AUDIT))]
MayWatch = Annotated[Principal, Depends(_may(Permission.WATCH))]
MayHook = Annotated[Principal, Depends(_may(Permission.HOOKS))]
MayAccounts = Annotated[Principal, Depends(_may(Permission.ACCOUNTS))]
Known = Annotated[Principal, Depends(_may(Permission.SELF))]
Device = Annotated[str, Depends(device)]
AnyToken = Annotated[str, Depends(anyone)]
