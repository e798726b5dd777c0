"""``kedge user`` and ``kedge token``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, get_args

import typer

from kedge_server.operator import show_accounts as show
from kedge_server.operator.options import connected, finite
from kedge_shared.accounts import (
    ApiTokenRequest,
    PasswordChange,
    Role,
    Roles,
    UserChange,
    UserRequest,
)
from kedge_shared.errors import InputError
from kedge_shared.options import Json, Server, TokenFile

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["token", "user"]

user = typer.Typer(no_args_is_help=True, help="Who operates the fleet.")
token = typer.Typer(no_args_is_help=True, help="API tokens, for programs and for oneself.")

_KNOWN: tuple[Role, ...] = get_args(Role)
RoleOption = Annotated[
    list[str], typer.Option("--role", help=f"One of {', '.join(_KNOWN)}; may be repeated.")
]
Scope = Annotated[str, typer.Option(help="Only boards that match, in RSQL (docs/rollouts.md).")]
PasswordFile = Annotated[
    Path | None, typer.Option("--password-file", help="Read it from a file instead of asking.")
]
Out = Annotated[Path | None, typer.Option("--out", help="File to write the token to, mode 0600.")]


def read_roles(names: Sequence[str]) -> Roles:
    """Reads roles.

    Raises:
        InputError: There is none, or no such role.
    """
    found = tuple(each for each in _KNOWN if each in names)
    wrong = [each for each in names if each not in _KNOWN]
    if wrong or not found:
        raise InputError(
            f"there is no role {wrong[0]}" if wrong else "no role",
            f"--role takes {', '.join(_KNOWN)}",
        )
    return found


@user.command("add")
def user_add(
    name: str,
    role: RoleOption,
    scope: Scope = "",
    password_file: PasswordFile = None,
    tokens_only: Annotated[
        bool, typer.Option("--tokens-only", help="Without a password: it cannot log in.")
    ] = False,
    server: Server = "",
    token_file: TokenFile = None,
    as_json: Json = False,
) -> None:
    """Make a user; the password is asked for."""
    from kedge_server.operator import secrets

    roles = read_roles(role)
    password = None if tokens_only else secrets.new_password(password_file)
    asked = UserRequest(name=name, roles=roles, scope=scope, password=password)
    with connected(server, token_file) as client:
        show.users([client.add_user(asked)], as_json=as_json)


@user.command("list")
def user_list(server: Server = "", token_file: TokenFile = None, as_json: Json = False) -> None:
    """List users with what they may do."""
    with connected(server, token_file) as client:
        show.users(client.users(), as_json=as_json)


@user.command("change")
def user_change(
    name: str,
    role: Annotated[
        list[str] | None,
        typer.Option("--role", help="Instead of the roles there are; may be repeated."),
    ] = None,
    scope: Annotated[
        str | None, typer.Option(help="Instead of the scope there is; '' is the whole fleet.")
    ] = None,
    server: Server = "",
    token_file: TokenFile = None,
    as_json: Json = False,
) -> None:
    """Change what a user may do; its tokens and sessions follow at once."""
    if not role and scope is None:
        raise InputError("nothing to change", "give --role, --scope or both")
    asked = UserChange(roles=read_roles(role) if role else None, scope=scope)
    with connected(server, token_file) as client:
        show.users([client.change_user(name, asked)], as_json=as_json)


@user.command("disable")
def user_disable(
    name: str, server: Server = "", token_file: TokenFile = None, as_json: Json = False
) -> None:
    """Let a user in no more; tokens and sessions end at once."""
    with connected(server, token_file) as client:
        show.users([client.disable_user(name)], as_json=as_json)


@user.command("enable")
def user_enable(
    name: str, server: Server = "", token_file: TokenFile = None, as_json: Json = False
) -> None:
    """Let a disabled user in again."""
    with connected(server, token_file) as client:
        show.users([client.enable_user(name)], as_json=as_json)


@user.command("password")
def user_password(
    name: str,
    password_file: PasswordFile = None,
    server: Server = "",
    token_file: TokenFile = None,
    as_json: Json = False,
) -> None:
    """Set a password; the user's sessions end. One's own asks for the current one too."""
    from kedge_server.operator import secrets

    with connected(server, token_file) as client:
        me = client.whoami()
        current = "" if "admin" in me.roles else secrets.password(None, "Current password")
        change = PasswordChange(password=secrets.new_password(password_file), current=current)
        show.users([client.set_password(name, change)], as_json=as_json)


@token.command("create")
def token_create(
    name: Annotated[str, typer.Argument(help="What it is for; the audit log shows it.")],
    role: RoleOption,
    scope: Scope = "",
    days: Annotated[float, typer.Option(help="How long it holds, days.")] = 90,
    owner: Annotated[str, typer.Option("--user", help="Whose it is; default: yours.")] = "",
    out: Out = None,
    server: Server = "",
    token_file: TokenFile = None,
    as_json: Json = False,
) -> None:
    """Make an API token; it is shown once, or written to a file."""
    from kedge_server.operator import secrets

    asked = ApiTokenRequest(
        name=name, roles=read_roles(role), scope=scope, user=owner,
        ttl_seconds=int(finite("--days", days) * 86400),
    )  # fmt: skip
    with connected(server, token_file) as client:
        made = client.make_api_token(asked)
    if out is not None:
        secrets.keep_token(out, made.token)
    show.made(made, out, as_json=as_json)


@token.command("list")
def token_list(server: Server = "", token_file: TokenFile = None, as_json: Json = False) -> None:
    """List one's API tokens; administrators see everybody's."""
    with connected(server, token_file) as client:
        show.api_tokens(client.api_tokens(), as_json=as_json)


@token.command("revoke")
def token_revoke(
    ident: Annotated[str, typer.Argument(metavar="ID", help="Of `kedge token list`.")],
    server: Server = "",
    token_file: TokenFile = None,
    as_json: Json = False,
) -> None:
    """Revoke an API token; it is refused from the next request on."""
    with connected(server, token_file) as client:
        show.api_tokens([client.revoke_api_token(ident)], as_json=as_json)
