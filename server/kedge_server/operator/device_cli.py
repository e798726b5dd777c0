"""``kedge device``: who comes into the fleet, and who is shut out."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

import typer

from kedge_server.operator import show
from kedge_server.operator import show_accounts as show_admission
from kedge_server.operator.options import connected, read_tags
from kedge_shared import wire
from kedge_shared.admission import AnnouncedKeys
from kedge_shared.errors import InputError
from kedge_shared.fleet import TAG_KEY_PATTERN, TAG_VALUE_MOST, TagsChange
from kedge_shared.ids import SHA256_PATTERN
from kedge_shared.options import Json, Server, TokenFile

_LIST_LIMIT_BYTES = 16 * 2**20
_AT_ONCE = 500

device = typer.Typer(no_args_is_help=True, help="The boards of the fleet.")
Fingerprint = Annotated[
    str, typer.Argument(help="Of the board's key, as it shows it; 12 digits at the least.")
]


@device.command("pending")
def device_pending(
    server: Server = "", token_file: TokenFile = None, as_json: Json = False
) -> None:
    """List boards that wait for approval."""
    with connected(server, token_file) as client:
        show_admission.pending(client.pending_devices(), as_json=as_json)


@device.command("approve")
def device_approve(
    fingerprint: Fingerprint,
    server: Server = "",
    token_file: TokenFile = None,
    as_json: Json = False,
) -> None:
    """Take a board in that waits; compare the fingerprint with what the board shows."""
    with connected(server, token_file) as client:
        name = client.approve_device(fingerprint).device
        show.devices([client.device(name)], as_json=as_json)


@device.command("reject")
def device_reject(
    fingerprint: Fingerprint,
    server: Server = "",
    token_file: TokenFile = None,
    as_json: Json = False,
) -> None:
    """Refuse a board that waits."""
    with connected(server, token_file) as client:
        show_admission.pending([client.reject_device(fingerprint)], as_json=as_json)


@device.command("announce")
def device_announce(
    file: Annotated[Path, typer.Argument(help="A factory's list: one fingerprint a line.")],
    note: Annotated[str, typer.Option(help="Where it comes from.")] = "",
    server: Server = "",
    token_file: TokenFile = None,
    as_json: Json = False,
) -> None:
    """Announce keys whose boards are taken in without being asked about."""
    found = read_fingerprints(file)
    made = []
    with connected(server, token_file) as client:
        for at in range(0, len(found), _AT_ONCE):
            some = AnnouncedKeys(fingerprints=found[at : at + _AT_ONCE], note=note)
            made += client.announce_keys(some)
    show_admission.announced(made, as_json=as_json)


@device.command("announced")
def device_announced(
    server: Server = "", token_file: TokenFile = None, as_json: Json = False
) -> None:
    """List announced keys with the boards that came."""
    with connected(server, token_file) as client:
        show_admission.announced(client.announced_keys(), as_json=as_json)


@device.command("withdraw")
def device_withdraw(
    fingerprint: Annotated[str, typer.Argument(help="Of the key.")],
    server: Server = "",
    token_file: TokenFile = None,
    as_json: Json = False,
) -> None:
    """Take the announcement of a key back; a board that came in by it stays."""
    with connected(server, token_file) as client:
        show_admission.announced([client.withdraw_key(fingerprint)], as_json=as_json)


@device.command("revoke")
def device_revoke(
    name: str, server: Server = "", token_file: TokenFile = None, as_json: Json = False
) -> None:
    """Refuse a board from its next request on, and its key for ever."""
    with connected(server, token_file) as client:
        show.devices([client.revoke_device(name)], as_json=as_json)


@device.command("clear")
def device_clear(
    name: str, server: Server = "", token_file: TokenFile = None, as_json: Json = False
) -> None:
    """Say that a suspected clone is none: you have looked, and there is one board with this key."""
    with connected(server, token_file) as client:
        show.devices([client.clear_device(name)], as_json=as_json)


@device.command("tag")
def device_tag(
    name: str,
    tags: Annotated[list[str] | None, typer.Argument(help="KEY:VALUE …")] = None,
    remove: Annotated[
        list[str] | None, typer.Option("--remove", help="KEY; may be repeated.")
    ] = None,
    server: Server = "",
    token_file: TokenFile = None,
    as_json: Json = False,
) -> None:
    """Give a board tags, or take them away; without any, show those it has.

    Selectors name them tag.KEY. Rollouts that have begun keep their boards.
    """
    given, gone = check_tags(read_tags(tags or [])), tuple(remove or ())
    with connected(server, token_file) as client:
        if given or gone:
            client.tag_devices(TagsChange(devices=(name,), set=given, drop=gone))
        found = client.device(name)
    if as_json:
        return show.print_json(found.tags)
    for key, value in sorted(found.tags.items()):
        show.say(f"{key}:{value}")
    return None


def check_tags(tags: dict[str, str]) -> dict[str, str]:
    """Returns tags that a selector can name.

    Raises:
        InputError: One is none.
    """
    for key, value in tags.items():
        if not re.match(TAG_KEY_PATTERN, key) or len(value) > TAG_VALUE_MOST:
            raise InputError(
                f"{key}:{value} is no tag",
                "a key has letters, digits, '_', '.' and '-', 64 at most; "
                f"a value has {TAG_VALUE_MOST} characters at most",
            )
    return tags


def read_fingerprints(path: Path) -> tuple[str, ...]:
    """Reads a list of fingerprints; empty lines, and what follows ``#``, are left out.

    Raises:
        InputError: It cannot be read, is empty, or a line is none.
    """
    text = wire.read_limited(path, "list", _LIST_LIMIT_BYTES).decode(errors="replace")
    found = []
    for number, line in enumerate(text.splitlines(), start=1):
        said = line.partition("#")[0].strip().lower()
        if said and not re.match(SHA256_PATTERN, said):
            raise InputError(f"{path} line {number} is no fingerprint", "it has 64 digits, 0 to f")
        if said:
            found.append(said)
    if not found:
        raise InputError(f"{path} holds no fingerprint")
    return tuple(dict.fromkeys(found))
