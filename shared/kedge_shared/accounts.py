"""What goes over the wire about operators: users, API tokens and sessions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from msgspec import Meta

from kedge_shared.ids import Name
from kedge_shared.rollouts import SelectorText

#: What a person or a token may be; the server has the table of what each may do.
Role = Literal["viewer", "operator", "approver", "admin"]
Roles = Annotated[tuple[Role, ...], Meta(min_length=1, max_length=4)]
#: NIST SP 800-63B-4, section 3.1.1.2: length, and no rules about what is in it.
PASSWORD_LEAST, PASSWORD_MOST = 12, 256
Password = Annotated[str, Meta(min_length=PASSWORD_LEAST, max_length=PASSWORD_MOST)]
#: Header that a browser's changing requests bear beside the cookie.
HEADER_CSRF = "X-Kedge-CSRF"


@dataclass(frozen=True, kw_only=True)
class UserRequest:
    """Asks for a user.

    Attributes:
        name: What the audit log calls the person.
        roles: What the person may do.
        scope: RSQL; the person sees and acts on these boards only. Empty is the whole fleet.
        password: For logging in; without one the person only has tokens.
    """

    name: Name
    roles: Roles
    scope: SelectorText = ""
    password: Password | None = None


@dataclass(frozen=True, kw_only=True)
class UserChange:
    """Changes what a user may do; what is not named stays.

    Attributes:
        roles: Instead of the roles there are.
        scope: Instead of the scope there is; empty is the whole fleet.
    """

    roles: Roles | None = None
    scope: SelectorText | None = None


@dataclass(frozen=True, kw_only=True)
class PasswordChange:
    """Sets a password.

    Attributes:
        password: The new one.
        current: The old one; asked for when people change their own.
    """

    password: Password
    current: Annotated[str, Meta(max_length=PASSWORD_MOST)] = ""


@dataclass(frozen=True, kw_only=True)
class UserInfo:
    """A user.

    Attributes:
        name: Name.
        roles: What the person may do.
        scope: Boards it is confined to; empty is the whole fleet.
        created: Unix seconds.
        disabled: Unix seconds, or ``None``.
        can_log_in: There is a password.
    """

    name: Name
    roles: tuple[Role, ...]
    scope: str
    created: float
    disabled: float | None
    can_log_in: bool


@dataclass(frozen=True, kw_only=True)
class ApiTokenRequest:
    """Asks for an API token.

    Attributes:
        name: What it is for; the audit log calls its bearer ``USER/NAME``.
        roles: No more than its user's count.
        scope: RSQL; narrows the user's scope.
        ttl_seconds: How long it holds.
        user: Whose it is; empty is who asks.
    """

    name: Name
    roles: Roles
    scope: SelectorText = ""
    ttl_seconds: Annotated[int, Meta(ge=60, le=366 * 86400)] = 90 * 86400
    user: str = ""


@dataclass(frozen=True, kw_only=True)
class ApiTokenInfo:
    """An API token, without its secret.

    Attributes:
        id: Identifier.
        name: What it is for.
        user: Whose it is.
        roles: What it may be used for.
        scope: Boards it is confined to, beside its user's scope.
        created: Unix seconds.
        expires: Unix seconds, or ``None`` for never: the first administrator's.
        last_used: Unix seconds, a minute exact, or ``None``.
        revoked: Unix seconds, or ``None``.
    """

    id: str
    name: Name
    user: Name
    roles: tuple[Role, ...]
    scope: str
    created: float
    expires: float | None
    last_used: float | None
    revoked: float | None


@dataclass(frozen=True, kw_only=True)
class ApiTokenMade:
    """A fresh API token; shown once, stored hashed.

    Attributes:
        token: The secret.
        info: The rest.
    """

    token: str
    info: ApiTokenInfo


@dataclass(frozen=True, kw_only=True)
class Login:
    """Opens a session.

    Attributes:
        name: User.
        password: Password.
    """

    name: Annotated[str, Meta(max_length=64)]
    password: Annotated[str, Meta(max_length=PASSWORD_MOST)]


@dataclass(frozen=True, kw_only=True)
class Whoami:
    """Who asks, and what for.

    Attributes:
        user: User.
        token: Name of the API token; empty in a session.
        roles: Of the user, or of the token.
        permissions: What may be done.
        scope: Boards it is confined to; empty is the whole fleet.
        csrf: Goes into the header ``X-Kedge-CSRF`` of changing requests; empty with a token.
        expires: Unix seconds, or ``None``.
    """

    user: Name
    token: str
    roles: tuple[Role, ...]
    permissions: tuple[str, ...]
    scope: str
    csrf: str
    expires: float | None
