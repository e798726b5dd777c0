"""Users and their API tokens."""

from __future__ import annotations

import hmac
import json
import secrets
import time
from collections.abc import Iterable

from sqlmodel import Session, col, select

from kedge_server.accounts import passwords
from kedge_server.accounts.principal import Principal, Reach
from kedge_server.accounts.roles import Permission, granted
from kedge_server.accounts.tables import ApiTokenRow, LoginSessionRow, UserRow
from kedge_server.audit.service import record
from kedge_server.errors import ConflictError, ForbiddenError, MalformedError, NotFoundError
from kedge_server.tokens import token_hash
from kedge_shared.accounts import (
    ApiTokenInfo,
    ApiTokenMade,
    ApiTokenRequest,
    PasswordChange,
    Role,
    UserChange,
    UserInfo,
    UserRequest,
)
from kedge_shared.errors import InputError
from kedge_shared.ids import fresh_id

FIRST_ADMIN = "admin"
_FIRST_TOKEN = "tk-first"  # noqa: S105 - an identifier


def first_admin(session: Session, token: str) -> None:
    """Makes the first administrator with the token of the data folder or the settings.

    A new token there (the file was thrown away, the setting changed) counts from then on: whoever
    has the server's folder has the server, and this is the way back in when nobody else has one.
    One that was revoked stays revoked.
    """
    now, hashed = time.time(), token_hash(token)
    row = session.get(ApiTokenRow, _FIRST_TOKEN)
    if row is not None and hmac.compare_digest(row.token_hash, hashed):
        return
    user = session.get(UserRow, FIRST_ADMIN)
    if user is None:
        user = UserRow(name=FIRST_ADMIN, roles=json.dumps(["admin"]), created=now)
    user.disabled = None
    session.add(user)
    session.flush()
    if row is None:
        row = ApiTokenRow(id=_FIRST_TOKEN, name="first", user=FIRST_ADMIN, token_hash=hashed,
                          roles=json.dumps(["admin"]), created=now)  # fmt: skip
    row.token_hash, row.created, row.revoked, row.last_used = hashed, now, None, None
    session.add(row)
    record(session, "server", "first token", FIRST_ADMIN)


def add_user(session: Session, request: UserRequest, who: str) -> UserInfo:
    """Makes a user.

    Raises:
        ConflictError: The name is taken, also by somebody who was disabled.
        MalformedError: The scope cannot be read.
    """
    if session.get(UserRow, request.name) is not None:
        raise ConflictError(f"there is a user {request.name} already", "`kedge user list`")
    _check_scope(request.scope)
    row = UserRow(
        name=request.name, roles=_roles(request.roles), scope=request.scope, created=time.time(),
        password_hash=passwords.hashed(request.password) if request.password else "",
    )  # fmt: skip
    session.add(row)
    session.flush()
    record(session, who, "user add", row.name, _may(request.roles, request.scope))
    return user_info(row)


def change_user(session: Session, name: str, change: UserChange, who: str) -> UserInfo:
    """Changes what a user may do; tokens and sessions give no more than their user from then on.

    Raises:
        NotFoundError: There is no such user.
        ConflictError: It is the last administrator and would be none any more.
        MalformedError: The scope cannot be read.
    """
    row = find_user(session, name)
    roles = roles_of(row.roles) if change.roles is None else change.roles
    scope = row.scope if change.scope is None else change.scope
    _check_scope(scope)
    if scope or "admin" not in roles:
        _keep_an_admin(session, row)
    row.roles, row.scope = _roles(roles), scope
    session.add(row)
    record(session, who, "user change", name, _may(roles, scope))
    return user_info(row)


def users(session: Session) -> list[UserInfo]:
    """Returns every user."""
    return [user_info(each) for each in session.exec(select(UserRow).order_by(col(UserRow.name)))]


def disable(session: Session, name: str, who: str) -> UserInfo:
    """Lets a user in no more: tokens and sessions end with it, and the name stays taken.

    Raises:
        NotFoundError: There is no such user.
        ConflictError: It is the last administrator.
    """
    row = find_user(session, name)
    _keep_an_admin(session, row)
    row.disabled = row.disabled or time.time()
    session.add(row)
    record(session, who, "user disable", name)
    return user_info(row)


def enable(session: Session, name: str, who: str) -> UserInfo:
    """Lets a disabled user in again.

    Raises:
        NotFoundError: There is no such user.
    """
    row = find_user(session, name)
    row.disabled = None
    session.add(row)
    record(session, who, "user enable", name)
    return user_info(row)


def change_password(
    session: Session, name: str, change: PasswordChange, who: Principal
) -> UserInfo:
    """Sets a password and ends the user's sessions.

    Raises:
        NotFoundError: There is no such user.
        ForbiddenError: It is another's and not an administrator's to set, or the current one is
            not the current one.
    """
    row = find_user(session, name)
    if Permission.ACCOUNTS not in who.permissions:
        if who.user != name:
            raise ForbiddenError(f"the password of {name} is not yours to set")
        if not passwords.fits(change.current, row.password_hash):
            raise ForbiddenError("that is not the current password")
    row.password_hash = passwords.hashed(change.password)
    session.add(row)
    now = time.time()
    for each in session.exec(
        select(LoginSessionRow).where(
            LoginSessionRow.user == name, col(LoginSessionRow.ended).is_(None)
        )
    ):
        each.ended = now
        session.add(each)
    record(session, str(who), "user password", name)
    return user_info(row)


def make_token(session: Session, request: ApiTokenRequest, who: Principal) -> ApiTokenMade:
    """Makes an API token; only its hash is stored.

    Raises:
        NotFoundError: There is no such user.
        ForbiddenError: It is for somebody else, or gives more than its maker has.
        MalformedError: The scope cannot be read.
    """
    owner, scope = find_user(session, request.user or who.user), request.scope
    _check_scope(scope)
    most = granted(roles_of(owner.roles))
    if owner.name == who.user:
        # What a token makes is confined as it is itself: it must be no way out.
        most, scope = who.granted, who.reach.narrowed(scope)
    elif Permission.ACCOUNTS not in who.permissions:
        raise ForbiddenError("tokens of others are an administrator's to make")
    if not granted(request.roles) <= most:
        raise ForbiddenError(f"that is more than {owner.name} may do here")
    secret, now = f"kdg_{secrets.token_urlsafe(32)}", time.time()
    row = ApiTokenRow(
        id=fresh_id("tk"), name=request.name, user=owner.name, token_hash=token_hash(secret),
        roles=_roles(request.roles), scope=scope, created=now, expires=now + request.ttl_seconds,
    )  # fmt: skip
    session.add(row)
    session.flush()
    record(session, str(who), "token create", f"{row.user}/{row.name}",
           f"{row.id}: {_may(request.roles, scope)}")  # fmt: skip
    return ApiTokenMade(token=secret, info=token_info(row))


def tokens(session: Session, who: Principal) -> list[ApiTokenInfo]:
    """Returns one's own tokens, or everybody's to an administrator."""
    query = select(ApiTokenRow).order_by(col(ApiTokenRow.user), col(ApiTokenRow.created))
    if Permission.ACCOUNTS not in who.permissions:
        query = query.where(ApiTokenRow.user == who.user)
    return [token_info(each) for each in session.exec(query)]


def revoke_token(session: Session, token: str, who: Principal) -> ApiTokenInfo:
    """Lets nobody in with a token any more.

    Raises:
        NotFoundError: There is none, or it is another's and not an administrator's to revoke.
    """
    row = session.get(ApiTokenRow, token)
    if row is None or (row.user != who.user and Permission.ACCOUNTS not in who.permissions):
        raise NotFoundError(f"there is no token {token}", "`kedge token list`")
    row.revoked = row.revoked or time.time()
    session.add(row)
    record(session, str(who), "token revoke", f"{row.user}/{row.name}", row.id)
    return token_info(row)


def find_user(session: Session, name: str) -> UserRow:
    """Returns a user.

    Raises:
        NotFoundError: There is none.
    """
    row = session.get(UserRow, name)
    if row is None:
        raise NotFoundError(f"there is no user {name}", "`kedge user list`")
    return row


def roles_of(text: str) -> tuple[Role, ...]:
    """Reads stored roles."""
    return tuple(json.loads(text))


def user_info(row: UserRow) -> UserInfo:
    """Returns what is shown of a user."""
    return UserInfo(
        name=row.name, roles=roles_of(row.roles), scope=row.scope, created=row.created,
        disabled=row.disabled, can_log_in=bool(row.password_hash),
    )  # fmt: skip


def token_info(row: ApiTokenRow) -> ApiTokenInfo:
    """Returns what is shown of a token."""
    return ApiTokenInfo(
        id=row.id, name=row.name, user=row.user, roles=roles_of(row.roles), scope=row.scope,
        created=row.created, expires=row.expires, last_used=row.last_used, revoked=row.revoked,
    )  # fmt: skip


def _keep_an_admin(session: Session, leaving: UserRow) -> None:
    others = (each for each in session.exec(select(UserRow)) if each.name != leaving.name)
    if _is_admin(leaving) and not any(_is_admin(each) for each in others):
        raise ConflictError(f"{leaving.name} is the last administrator", "make another one first")


def _is_admin(row: UserRow) -> bool:
    """Says whether somebody may do everything; within a scope nobody makes users."""
    return row.disabled is None and not row.scope and "admin" in roles_of(row.roles)


def _roles(roles: Iterable[Role]) -> str:
    return json.dumps(sorted(set(roles)))


def _may(roles: Iterable[Role], scope: str) -> str:
    said = ", ".join(sorted(set(roles)))
    return f"{said} within {scope}" if scope else said


def _check_scope(scope: str) -> None:
    try:
        Reach.of(scope)
    except InputError as error:
        raise MalformedError(error.what, "docs/rollouts.md has the language") from None
