"""How users, API tokens, waiting boards and the audit log are shown."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import msgspec

from kedge_server.operator.show import print_json, print_table, say, span, whole
from kedge_shared.accounts import ApiTokenInfo, ApiTokenMade, UserInfo, Whoami
from kedge_shared.admission import AnnouncedKey, PendingDevice
from kedge_shared.audit import AuditEntry, Verified
from kedge_shared.errors import one_line
from kedge_shared.servers import ServerConfig

#: Digits of a fingerprint that people compare: nobody finds another key that begins so.
_SHOWN = 32


def users(found: Sequence[UserInfo], *, as_json: bool) -> None:
    """Shows users."""
    if as_json:
        return print_json(found)
    rows = [
        (each.name, ", ".join(each.roles), each.scope or "whole fleet",
         "disabled" if each.disabled else "password" if each.can_log_in else "tokens only")
        for each in found
    ]  # fmt: skip
    return print_table("Users", ("user", "roles", "scope", "gets in by"), rows, "No user.")


def api_tokens(found: Sequence[ApiTokenInfo], *, as_json: bool) -> None:
    """Shows API tokens."""
    if as_json:
        return print_json(found)
    rows = [
        (each.id, f"{each.user}/{each.name}", ", ".join(each.roles), each.scope or "as its user",
         _holds(each), _day(each.last_used, "never"))
        for each in found
    ]  # fmt: skip
    columns = (whole("id"), "token", "roles", "scope", "holds", "last used")
    return print_table("API tokens", columns, rows, "No token: `kedge token create`.")


def made(found: ApiTokenMade, out: Path | None, *, as_json: bool) -> None:
    """Shows a fresh token, or where it was written."""
    if as_json:
        return print_json(found.info if out else found)
    print(f"export KEDGE_TOKEN_FILE={out}" if out else found.token)
    return None


def logged_in(found: ApiTokenMade, name: str, kept: Path, *, known: bool, as_json: bool) -> None:
    """Shows where a login's token lies; never the token."""
    if as_json:
        return print_json({"token": found.info, "file": kept, "server": name if known else ""})
    until = _day(found.info.expires, "revoked")
    print(f"{found.info.user} is logged in until {until} UTC; the token is in {kept}")
    print(f"this server is {name} from now on: --server {name}" if known
          else f"export KEDGE_TOKEN_FILE={kept}")  # fmt: skip
    return None


def whoami(server: str, found: Whoami, *, as_json: bool) -> None:
    """Shows who asks."""
    if as_json:
        return print_json({"server": server, **msgspec.to_builtins(found)})
    by = f" with the token {found.token}" if found.token else ""
    print(f"{found.user}{by} at {server}, until {_day(found.expires, 'revoked')}")
    print(f"roles: {', '.join(found.roles)}")
    print(f"boards: {found.scope or 'the whole fleet'}")
    print(f"may: {', '.join(found.permissions)}")
    return None


def servers(path: Path, found: ServerConfig, *, as_json: bool) -> None:
    """Shows the servers that have a name."""
    if as_json:
        return print_json(found)
    rows = [
        (f"{name} (default)" if name == found.default else name, each.address,
         each.token_file or "none", each.ca_file or "public")
        for name, each in sorted(found.servers.items())
    ]  # fmt: skip
    columns = ("server", "address", "token file", "authorities")
    empty = f"No server has a name in {path}: `kedge login` or `kedge config add`."
    return print_table(f"Servers of {path}", columns, rows, empty)


def pending(found: Sequence[PendingDevice], *, as_json: bool) -> None:
    """Shows boards that wait for approval."""
    if as_json:
        return print_json(found)
    rows = [
        (each.fingerprint[:_SHOWN], each.name, each.device_class,
         " ".join(f"{key}:{value}" for key, value in each.tags.items()), each.address, each.state,
         f"{span(max(0.0, time.time() - each.last_asked))} ago")
        for each in found
    ]  # fmt: skip
    columns = (whole("fingerprint"), "name", "class", "tags", "from", "state", "asked")
    return print_table("Boards that wait for approval", columns, rows, "No board waits.")


def announced(found: Sequence[AnnouncedKey], *, as_json: bool) -> None:
    """Shows announced keys."""
    if as_json:
        return print_json(found)
    rows = [
        (each.fingerprint[:_SHOWN], each.note, each.added_by, each.device or "did not come yet")
        for each in found
    ]
    columns = (whole("fingerprint"), "note", "announced by", "board")
    return print_table("Announced keys", columns, rows, "No key was announced.")


def audit(found: Sequence[AuditEntry], *, as_json: bool) -> None:
    """Shows entries of the audit log."""
    if as_json:
        return print_json(found)
    if not found:
        say("Nothing happened yet.")
    # Lines, not a table: what is told is a sentence, and seven narrow columns break it up.
    for each in found:
        detail = f": {each.detail}" if each.detail else ""
        said = f"{each.actor}  {each.action}  {each.subject}{detail}"
        say(f"{each.id:>6}  {_day(each.at, '')}  {one_line(said)}")
    return None


def verified(found: Verified, *, as_json: bool) -> None:
    """Shows what following the chain brought."""
    if as_json:
        return print_json(found)
    print(f"{found.entries} entries hold; head {found.last_id}:{found.last_hash}")
    return None


def _holds(token: ApiTokenInfo) -> str:
    if token.revoked is not None:
        return "revoked"
    if token.expires is None:
        return "until revoked"
    return "expired" if token.expires < time.time() else f"until {_day(token.expires, '')}"


def _day(moment: float | None, never: str) -> str:
    if moment is None:
        return never
    return time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(moment))
