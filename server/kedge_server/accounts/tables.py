"""Tables of users, their API tokens and their sessions."""

from __future__ import annotations

from sqlmodel import Field, SQLModel


class UserRow(SQLModel, table=True):
    """A person, or what acts for itself under a name of its own. ``roles`` is a JSON list."""

    __tablename__ = "operator"

    name: str = Field(primary_key=True)
    password_hash: str = ""
    roles: str
    scope: str = ""
    created: float
    disabled: float | None = None


class ApiTokenRow(SQLModel, table=True):
    """An API token, hashed."""

    __tablename__ = "api_token"

    id: str = Field(primary_key=True)
    name: str
    user: str = Field(foreign_key="operator.name", index=True)
    token_hash: str = Field(unique=True)
    roles: str
    scope: str = ""
    created: float
    expires: float | None = None
    last_used: float | None = None
    revoked: float | None = None


class LoginSessionRow(SQLModel, table=True):
    """A session of a browser or of ``kedge login``; its secret hashed.

    Rows outlive their session: from where somebody has logged in before is not a stranger's
    address (throttle.py).
    """

    __tablename__ = "login_session"

    secret_hash: str = Field(primary_key=True)
    user: str = Field(foreign_key="operator.name", index=True)
    address: str
    created: float
    expires: float
    ended: float | None = None
