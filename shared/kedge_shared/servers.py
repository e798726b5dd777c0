"""Servers by name: one file that says where they are and where their tokens lie.

::

    default: north
    servers:
      north:
        address: https://kedge.north.example
        token_file: ~/.config/kedge/tokens/north
        ca_file: /etc/ssl/north-ca.pem

What a command is told goes before the environment, the environment before this file. A token is
never written into it: a file that is shown around, or kept in version control, gives nothing away.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import msgspec

from kedge_shared import wire
from kedge_shared.errors import InputError, StorageError
from kedge_shared.ids import Name

CONFIG_ENV = "KEDGE_CONFIG"
SERVER_ENV = "KEDGE_SERVER"
TOKEN_ENV = "KEDGE_TOKEN"  # noqa: S105 - the name of a variable
TOKEN_FILE_ENV = "KEDGE_TOKEN_FILE"  # noqa: S105
DEFAULT_SERVER = "http://127.0.0.1:8470"

_CONFIG_LIMIT_BYTES = 256 * 1024
_TOKEN_LIMIT_BYTES = 4096


@dataclass(frozen=True, kw_only=True)
class NamedServer:
    """A server that has a name here.

    Attributes:
        address: ``https://HOST[:PORT]``.
        token_file: With the operator token; ``~`` is the home folder.
        ca_file: Authorities (PEM) that vouch for the server, instead of the public ones.
        token_id: Of the token that ``kedge login`` made, so that ``kedge logout`` can revoke it.
    """

    address: str
    token_file: str = ""
    ca_file: str = ""
    token_id: str = ""


@dataclass(frozen=True, kw_only=True)
class ServerConfig:
    """The file.

    Attributes:
        default: Name of the server that commands without ``--server`` ask.
        servers: Name → server.
    """

    default: str = ""
    servers: dict[Name, NamedServer] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Target:
    """Whom a command asks, and with what.

    Attributes:
        address: Of the server.
        name: In the file; empty if it has none.
        token: Operator token; empty where none was looked for.
        ca_file: Authorities that vouch for the server, or ``None`` for the public ones.
    """

    address: str
    name: str = ""
    token: str = ""
    ca_file: Path | None = None


def config_path(environment: Mapping[str, str] = os.environ) -> Path:
    """Returns where the file is: ``KEDGE_CONFIG``, else in the user's configuration folder."""
    told = environment.get(CONFIG_ENV)
    if told:
        return Path(told).expanduser()
    folder = environment.get("XDG_CONFIG_HOME") or "~/.config"
    return Path(folder).expanduser() / "kedge" / "config.yaml"


def read_config(path: Path) -> ServerConfig:
    """Reads the file; one that is not there names no server.

    Raises:
        InputError: It cannot be read, or its default is none of its servers.
    """
    if not path.exists():
        return ServerConfig()
    data = wire.read_limited(path, "configuration", _CONFIG_LIMIT_BYTES)
    found = wire.decode_yaml(data or b"{}", ServerConfig, str(path))
    if found.default and found.default not in found.servers:
        raise InputError(
            f"{path}: default {found.default} is none of its servers",
            f"it names {', '.join(sorted(found.servers)) or 'none'}",
        )
    return found


def write_config(path: Path, config: ServerConfig) -> None:
    """Writes the file, whole or not at all.

    Raises:
        StorageError: It cannot be written.
    """
    scratch = path.with_name(f".{path.name}.new")
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        scratch.write_bytes(msgspec.yaml.encode(_said(config), order="sorted"))
        scratch.replace(path)
    except OSError as error:
        raise StorageError(f"{path} cannot be written: {error.strerror}") from None


def _said(config: ServerConfig) -> dict[str, object]:
    """Returns what there is to say; empty fields are left out."""
    servers = {
        name: {key: value for key, value in msgspec.to_builtins(each).items() if value}
        for name, each in config.servers.items()
    }
    return {"default": config.default, "servers": servers}


def named(config: ServerConfig, name: str, server: NamedServer | None) -> ServerConfig:
    """Returns the file with a server put in, in the place of an older one, or taken out.

    The first that is put in is the default; with the default taken out there is none.
    """
    rest = {key: value for key, value in config.servers.items() if key != name}
    if server is None:
        default = "" if config.default == name else config.default
        return replace(config, default=default, servers=rest)
    return replace(config, default=config.default or name, servers={**rest, name: server})


def resolve(
    server: str = "",
    token_file: Path | None = None,
    *,
    environment: Mapping[str, str] = os.environ,
    wants_token: bool = True,
) -> Target:
    """Says whom a command asks: option, then environment, then file.

    Args:
        server: Address, or a name of the file's; empty to go by environment and file.
        token_file: With the operator token.
        environment: ``KEDGE_SERVER``, ``KEDGE_TOKEN_FILE``, ``KEDGE_TOKEN``, ``KEDGE_CONFIG``.
        wants_token: Look for a token.

    Raises:
        InputError: The file names no such server, cannot be read, or there is no token.
    """
    path = config_path(environment)
    config = read_config(path)
    asked = server or environment.get(SERVER_ENV, "") or config.default or DEFAULT_SERVER
    name, entry = _entry(config, asked)
    if entry is None and "://" not in asked:
        known = ", ".join(sorted(config.servers)) or "none"
        raise InputError(
            f"there is no server {asked!r} in {path}",
            f"write https://HOST[:PORT], or a name it has: {known}",
        )
    found = Target(
        address=entry.address if entry else asked,
        name=name,
        ca_file=Path(entry.ca_file).expanduser() if entry and entry.ca_file else None,
    )
    if not wants_token:
        return found
    kept = Path(entry.token_file).expanduser() if entry and entry.token_file else None
    return replace(found, token=_token(token_file, environment, kept))


def _entry(config: ServerConfig, asked: str) -> tuple[str, NamedServer | None]:
    if asked in config.servers:
        return asked, config.servers[asked]
    for name, each in config.servers.items():
        if each.address.rstrip("/") == asked.rstrip("/"):
            return name, each
    return "", None


def read_token(token_file: Path | None = None, environment: Mapping[str, str] = os.environ) -> str:
    """Finds the operator token: file, ``KEDGE_TOKEN_FILE`` or ``KEDGE_TOKEN``; never an argument.

    Raises:
        InputError: There is none, or the file cannot be read.
    """
    return _token(token_file, environment, None)


def _token(token_file: Path | None, environment: Mapping[str, str], kept: Path | None) -> str:
    told = environment.get(TOKEN_FILE_ENV)
    path, secret = token_file or (Path(told) if told else None), ""
    if path is None:
        secret = environment.get(TOKEN_ENV, "").strip()
        path = None if secret else kept
    if path is not None:
        if not path.exists():
            raise InputError(f"operator token {path} is not there", "`kedge login NAME` makes one")
        data = wire.read_limited(path, "operator token", _TOKEN_LIMIT_BYTES)
        secret = data.decode(errors="replace").strip()
    if not secret:
        raise InputError(
            "no operator token",
            f"`kedge login NAME`, or set {TOKEN_FILE_ENV} to the file the server wrote",
        )
    if not all("!" <= each <= "~" for each in secret):
        raise InputError(
            f"{path or TOKEN_ENV} holds no operator token", "it is one line of letters and digits"
        )
    return secret
