"""Logging in: sessions behind a cookie, and how often it may be tried."""

from __future__ import annotations

import hashlib
import hmac
import json
import secrets
import time
from dataclasses import dataclass

from sqlmodel import Session, col, delete, select

from kedge_server.accounts import passwords
from kedge_server.accounts.principal import Principal
from kedge_server.accounts.roles import granted, within
from kedge_server.accounts.tables import ApiTokenRow, LoginSessionRow, UserRow
from kedge_server.audit.service import record
from kedge_server.errors import BusyError, UnauthorizedError
from kedge_server.throttle import ACCOUNT, ADDRESS, Rate, Throttle, network
from kedge_server.tokens import token_hash
from kedge_shared.accounts import Login

#: From where somebody logged in so lately is no stranger's address.
_KNOWN_SECONDS = 90 * 86400.0
#: ``last_used`` is written no more often.
_USED_SECONDS = 60.0


@dataclass(frozen=True)
class Opened:
    """A fresh session.

    Attributes:
        secret: Goes into the cookie.
        user: Whose it is.
        expires: Unix seconds.
    """

    secret: str
    user: str
    expires: float


class Attempt:
    """One try to log in, paid for before the password is looked at.

    Raises:
        BusyError: There were too many, from this address or of strangers at this account.
    """

    def __init__(
        self, session: Session, throttle: Throttle, name: str, address: str, now: float
    ) -> None:
        near = network(address)
        account = ("account", name, near) if _known(session, name, near, now) else ("account", name)
        self._throttle, self._now = throttle, now
        self._paid: list[tuple[tuple[str, ...], Rate]] = []
        for key, rate in ((("address", near), ADDRESS), (account, ACCOUNT)):
            wait = throttle.spend(key, rate, now)
            if wait:
                raise BusyError("too many attempts to log in", retry_after=wait)
            self._paid.append((key, rate))

    def succeeded(self) -> None:
        """Was none that guesses."""
        for key, rate in self._paid:
            self._throttle.give_back(key, rate, self._now)


def log_in(
    session: Session, throttle: Throttle, login: Login, address: str, hours: float
) -> Opened | None:
    """Opens a session; ``None`` when name or password is wrong, which the audit log then keeps.

    Raises:
        BusyError: Tried too often.
    """
    now = time.time()
    attempt = Attempt(session, throttle, login.name, address, now)
    user = session.get(UserRow, login.name)
    stored = user.password_hash if user is not None and user.disabled is None else ""
    if not passwords.fits(login.password, stored) or user is None:
        record(session, "server", "login refused", user.name if user else "", f"from {address}")
        return None
    attempt.succeeded()
    secret, expires = secrets.token_urlsafe(32), now + hours * 3600
    session.add(
        LoginSessionRow(secret_hash=token_hash(secret), user=user.name, address=network(address),
                        created=now, expires=expires)
    )  # fmt: skip
    record(session, user.name, "login", user.name, f"from {address}")
    return Opened(secret, user.name, expires)


def log_out(session: Session, secret: str, who: Principal) -> None:
    """Ends a session."""
    row = session.get(LoginSessionRow, token_hash(secret))
    if row is not None and row.ended is None:
        row.ended = time.time()
        session.add(row)
        record(session, str(who), "logout", who.user)


def of_session(session: Session, secret: str) -> Principal:
    """Returns who bears a cookie.

    Raises:
        UnauthorizedError: It is none of ours, over, or its user was disabled.
    """
    row = session.get(LoginSessionRow, token_hash(secret))
    user = session.get(UserRow, row.user) if row is not None else None
    if row is None or user is None or row.ended is not None or row.expires < time.time():
        raise UnauthorizedError("this session is over", "log in again")
    roles = tuple(json.loads(_standing(user).roles))
    held = granted(roles)
    return Principal(
        user=user.name, token="", roles=roles, granted=held,
        permissions=within(held, [user.scope]), scopes=(user.scope,), csrf=csrf_of(secret),
        expires=row.expires,
    )  # fmt: skip


def of_token(session: Session, token: str) -> Principal:
    """Returns who bears an API token.

    Raises:
        UnauthorizedError: It is none of ours, revoked, expired, or its user was disabled.
    """
    row = session.exec(
        select(ApiTokenRow).where(ApiTokenRow.token_hash == token_hash(token))
    ).first()
    if row is None:
        raise UnauthorizedError("this token is no operator's")
    now = time.time()
    if row.revoked is not None or (row.expires is not None and row.expires < now):
        raise UnauthorizedError(f"token {row.name} was revoked or has expired", "make another one")
    user = _standing(session.get_one(UserRow, row.user))
    if row.last_used is None or row.last_used < now - _USED_SECONDS:
        row.last_used = now
        session.add(row)
    roles = tuple(json.loads(row.roles))
    held, scopes = granted(json.loads(user.roles)) & granted(roles), (user.scope, row.scope)
    return Principal(
        user=user.name, token=row.name, roles=roles, granted=held, scopes=scopes,
        permissions=within(held, scopes), expires=row.expires,
    )  # fmt: skip


def csrf_of(secret: str) -> str:
    """Returns what a session's changing requests bear: foreign pages send cookies, not this."""
    return hmac.new(secret.encode(), b"kedge csrf", hashlib.sha256).hexdigest()


def forget_old(session: Session, now: float) -> None:
    """Throws rows of sessions away that say nothing any more."""
    session.exec(delete(LoginSessionRow).where(col(LoginSessionRow.expires) < now - _KNOWN_SECONDS))


def _standing(user: UserRow) -> UserRow:
    if user.disabled is not None:
        raise UnauthorizedError(f"user {user.name} was disabled")
    return user


def _known(session: Session, name: str, near: str, now: float) -> bool:
    query = select(LoginSessionRow).where(
        LoginSessionRow.user == name, LoginSessionRow.address == near,
        LoginSessionRow.created > now - _KNOWN_SECONDS,
    )  # fmt: skip
    return session.exec(query).first() is not None
