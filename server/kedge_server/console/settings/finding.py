"""Users and tokens, page by page."""

from __future__ import annotations

from dataclasses import dataclass

from sqlmodel import Session, col, func, or_, select

from kedge_server.accounts import service
from kedge_server.accounts.principal import Principal
from kedge_server.accounts.roles import Permission
from kedge_server.accounts.tables import ApiTokenRow, LoginSessionRow, UserRow
from kedge_server.errors import NotFoundError
from kedge_shared.accounts import ApiTokenInfo, UserInfo

SHOWN = 100


@dataclass(frozen=True)
class Reaches:
    """What a user holds that lets somebody in.

    Attributes:
        tokens: That count now.
        sessions: The same.
    """

    tokens: int
    sessions: int


def users(session: Session, after: str) -> tuple[list[UserInfo], str]:
    """Returns users by name, and the last name if more follow."""
    query = select(UserRow).where(col(UserRow.name) > after).order_by(col(UserRow.name))
    rows = session.exec(query.limit(SHOWN + 1)).all()
    following = rows[SHOWN - 1].name if len(rows) > SHOWN else ""
    return [service.user_info(each) for each in rows[:SHOWN]], following


def tokens_of(session: Session, user: str) -> tuple[list[ApiTokenInfo], bool]:
    """Returns a user's tokens, newest first, and whether there are more."""
    query = select(ApiTokenRow).where(ApiTokenRow.user == user)
    # Those that count come before those that were revoked.
    ordered = query.order_by(col(ApiTokenRow.revoked).is_not(None), col(ApiTokenRow.created).desc())
    rows = session.exec(ordered.limit(SHOWN + 1)).all()
    return [service.token_info(each) for each in rows[:SHOWN]], len(rows) > SHOWN


def token(session: Session, name: str, who: Principal) -> ApiTokenInfo:
    """Returns a token that somebody may revoke.

    Raises:
        NotFoundError: There is none, or it is another's and not an administrator's to revoke.
    """
    row = session.get(ApiTokenRow, name)
    if row is None or (row.user != who.user and Permission.ACCOUNTS not in who.permissions):
        raise NotFoundError(f"there is no token {name}", "`kedge token list`")
    return service.token_info(row)


def reaches(session: Session, user: str, now: float) -> Reaches:
    """Counts what lets somebody in under a user's name now."""
    tokens = select(func.count()).where(
        ApiTokenRow.user == user, col(ApiTokenRow.revoked).is_(None),
        or_(col(ApiTokenRow.expires).is_(None), col(ApiTokenRow.expires) > now),
    )  # fmt: skip
    sessions = select(func.count()).where(
        LoginSessionRow.user == user, col(LoginSessionRow.ended).is_(None),
        LoginSessionRow.expires > now,
    )  # fmt: skip
    return Reaches(session.exec(tokens).one(), session.exec(sessions).one())
