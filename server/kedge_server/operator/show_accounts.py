"""How users, API tokens, waiting boards and the audit log are shown."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

from rich.table import Column

from kedge_server.operator.show import print_json, print_table
from kedge_shared.accounts import ApiTokenInfo, ApiTokenMade, UserInfo
from kedge_shared.admission import AnnouncedKey, PendingDevice
from kedge_shared.audit import AuditEntry, Verified

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
    columns = (_whole("id"), "token", "roles", "scope", "holds", "last used")
    return print_table("API tokens", columns, rows, "No token: `kedge token create`.")


def made(found: ApiTokenMade, out: Path | None, *, as_json: bool) -> None:
    """Shows a fresh token, or where it was written."""
    if as_json:
        return print_json(found.info if out else found)
    print(f"export KEDGE_TOKEN_FILE={out}" if out else found.token)
    return None


def pending(found: Sequence[PendingDevice], *, as_json: bool) -> None:
    """Shows boards that wait for approval."""
    if as_json:
        return print_json(found)
    rows = [
        (each.fingerprint[:_SHOWN], each.name, each.device_class,
         " ".join(f"{key}:{value}" for key, value in each.tags.items()), each.address, each.state,
         f"{max(0.0, time.time() - each.last_asked):.0f} s ago")
        for each in found
    ]  # fmt: skip
    columns = (_whole("fingerprint"), "name", "class", "tags", "from", "state", "asked")
    return print_table("Boards that wait for approval", columns, rows, "No board waits.")


def announced(found: Sequence[AnnouncedKey], *, as_json: bool) -> None:
    """Shows announced keys."""
    if as_json:
        return print_json(found)
    rows = [
        (each.fingerprint[:_SHOWN], each.note, each.added_by, each.device or "did not come yet")
        for each in found
    ]
    columns = (_whole("fingerprint"), "note", "announced by", "board")
    return print_table("Announced keys", columns, rows, "No key was announced.")


def audit(found: Sequence[AuditEntry], *, as_json: bool) -> None:
    """Shows entries of the audit log."""
    if as_json:
        return print_json(found)
    rows = [
        (str(each.id), _day(each.at, ""), each.actor, each.action, each.subject, each.detail)
        for each in found
    ]
    columns = ("entry", "when (UTC)", "who", "did", "to", "detail")
    return print_table("Audit log", columns, rows, "Nothing happened yet.")


def verified(found: Verified, *, as_json: bool) -> None:
    """Shows what following the chain brought."""
    if as_json:
        return print_json(found)
    print(f"{found.entries} entries hold; head {found.last_id}:{found.last_hash}")
    return None


def _whole(title: str) -> Column:
    """Returns a column of what is copied into another command."""
    return Column(title, no_wrap=True)


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
