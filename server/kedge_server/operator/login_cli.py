"""``kedge login``, ``logout``, ``whoami`` and ``config``: which server, and as whom."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated
from urllib.parse import urlsplit

import typer

from kedge_server.operator import show_accounts
from kedge_server.operator.options import connected, finite
from kedge_server.operator.show import print_json
from kedge_shared.accounts import ApiTokenRequest, Login
from kedge_shared.errors import InputError
from kedge_shared.ids import check_name
from kedge_shared.options import Json, Server, TokenFile
from kedge_shared.servers import (
    NamedServer,
    ServerConfig,
    config_path,
    named,
    read_config,
    resolve,
    write_config,
)

if TYPE_CHECKING:
    from kedge_shared.servers import Target

config = typer.Typer(no_args_is_help=True, help="Servers by name, and which is the default.")

CaFile = Annotated[
    Path | None,
    typer.Option("--ca-file", help="Authorities (PEM) that vouch for it, if not the public ones."),
]


def login(
    name: Annotated[str, typer.Argument(help="User.")],
    out: Annotated[
        Path | None,
        typer.Option("--out", help="Write the token to this file, and nothing else."),
    ] = None,
    as_name: Annotated[
        str, typer.Option("--as", help="What to call the server here; default: its host.")
    ] = "",
    hours: Annotated[float, typer.Option(help="How long the token holds, hours.")] = 12,
    password_file: Annotated[
        Path | None, typer.Option("--password-file", help="Read it from a file instead of asking.")
    ] = None,
    ca_file: CaFile = None,
    server: Server = "",
    as_json: Json = False,
) -> None:
    """Log in with a password; a token of one's own is kept for some hours.

    It lies in a file of mode 0600 beside the configuration, which names the server from now on.
    """
    from kedge_server.operator import secrets
    from kedge_shared.operator_client import OperatorClient

    target = resolve(server, wants_token=False)
    target = replace(target, ca_file=ca_file or target.ca_file)
    seconds = int(finite("--hours", hours) * 3600)
    called = check_name("server", as_name or target.name or called_by(target.address))
    with OperatorClient.of(target) as client:
        me = client.log_in(Login(name=name, password=secrets.password(password_file)))
        made = client.make_api_token(
            ApiTokenRequest(name="login", roles=me.roles, ttl_seconds=seconds)
        )
        client.log_out()
    kept = out or config_path().parent / "tokens" / called
    secrets.keep_token(kept, made.token)
    if out is None:
        _remember(called, target, kept, made.info.id)
    show_accounts.logged_in(made, called, kept, known=out is None, as_json=as_json)


def called_by(address: str) -> str:
    """Returns what a server is called that nobody gave a name: its host, and the port if any."""
    return re.sub(r"[^a-z0-9.]+", "-", urlsplit(address).netloc.lower()).strip("-.")


def _remember(name: str, target: Target, token: Path, token_id: str) -> None:
    path = config_path()
    found = NamedServer(
        address=target.address, token_file=str(token), token_id=token_id,
        ca_file=str(target.ca_file.absolute()) if target.ca_file else "",
    )  # fmt: skip
    write_config(path, named(read_config(path), name, found))


def logout(server: Server = "", as_json: Json = False) -> None:
    """Revoke the token that `kedge login` made, and remove its file."""
    from kedge_shared.operator_client import OperatorClient

    path = config_path()
    known = read_config(path)
    target = resolve(server, wants_token=False)
    entry = known.servers.get(target.name)
    if entry is None or not entry.token_id:
        raise InputError(f"nobody is logged in at {target.address}", "`kedge login NAME` does it")
    with OperatorClient.of(resolve(server, Path(entry.token_file).expanduser())) as client:
        client.revoke_api_token(entry.token_id)
    Path(entry.token_file).expanduser().unlink(missing_ok=True)
    out = replace(entry, token_file="", token_id="")
    write_config(path, named(known, target.name, out))
    _say({"server": target.name, "logged_in": False}, f"logged out of {target.name}", as_json)


def whoami(server: Server = "", token_file: TokenFile = None, as_json: Json = False) -> None:
    """Show who one is to the server, and what may be done."""
    with connected(server, token_file) as client:
        show_accounts.whoami(client.server, client.whoami(), as_json=as_json)


@config.command("list")
def config_list(as_json: Json = False) -> None:
    """List the servers that have a name here."""
    path = config_path()
    show_accounts.servers(path, read_config(path), as_json=as_json)


@config.command("add")
def config_add(
    name: Annotated[str, typer.Argument(help="What to call it.")],
    address: Annotated[str, typer.Argument(help="https://HOST[:PORT]")],
    token_file: TokenFile = None,
    ca_file: CaFile = None,
    as_json: Json = False,
) -> None:
    """Give a server a name; the first is the default."""
    from kedge_shared.client import check_url

    check_name("server", name)
    found = NamedServer(
        address=check_url(address),
        token_file=str(token_file.absolute()) if token_file else "",
        ca_file=str(ca_file.absolute()) if ca_file else "",
    )
    _change(lambda known: named(known, name, found), as_json=as_json)


@config.command("use")
def config_use(
    name: Annotated[str, typer.Argument(help="Of `kedge config list`.")], as_json: Json = False
) -> None:
    """Make a server the default."""

    def used(known: ServerConfig) -> ServerConfig:
        _must_know(known, name)
        return replace(known, default=name)

    _change(used, as_json=as_json)


@config.command("remove")
def config_remove(
    name: Annotated[str, typer.Argument(help="Of `kedge config list`.")], as_json: Json = False
) -> None:
    """Forget a server; `kedge logout` before it revokes the token."""

    def removed(known: ServerConfig) -> ServerConfig:
        _must_know(known, name)
        return named(known, name, None)

    _change(removed, as_json=as_json)


@config.command("path")
def config_path_command() -> None:
    """Print where the configuration is."""
    typer.echo(str(config_path()))


def _must_know(known: ServerConfig, name: str) -> None:
    if name not in known.servers:
        raise InputError(
            f"there is no server {name!r}", f"there are {', '.join(known.servers) or 'none'}"
        )


def _change(change: Callable[[ServerConfig], ServerConfig], *, as_json: bool) -> None:
    path = config_path()
    changed = change(read_config(path))
    write_config(path, changed)
    show_accounts.servers(path, read_config(path), as_json=as_json)


def _say(body: object, line: str, as_json: bool) -> None:
    if as_json:
        print_json(body)
    else:
        typer.echo(line)
