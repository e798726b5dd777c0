"""``kedge audit``."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from kedge_server.operator import show_accounts as show
from kedge_server.operator.options import connected
from kedge_shared import wire
from kedge_shared.audit import AuditEntry, verify
from kedge_shared.errors import InputError, StorageError, TrustError
from kedge_shared.options import Json, Server, TokenFile

audit = typer.Typer(no_args_is_help=True, help="Who did what, in a chain of hashes.")


@audit.command("list")
def audit_list(
    most: Annotated[int, typer.Option(min=1, max=1000, help="How many.")] = 50,
    server: Server = "",
    token_file: TokenFile = None,
    as_json: Json = False,
) -> None:
    """List what happened lately, newest first."""
    with connected(server, token_file) as client:
        show.audit(client.newest_audit(most), as_json=as_json)


@audit.command("export")
def audit_export(
    out: Annotated[Path, typer.Argument(help="File to write, one JSON object a line.")],
    server: Server = "",
    token_file: TokenFile = None,
) -> None:
    """Write the whole log to a file, whole or not at all."""
    scratch = out.with_name(f".{out.name}.new")
    try:
        with connected(server, token_file) as client, scratch.open("wb") as file:
            for each in client.audit():
                file.write(wire.encode(each) + b"\n")
        scratch.replace(out)
    except OSError as error:
        raise StorageError(f"{out} cannot be written: {error.strerror}") from None
    finally:
        scratch.unlink(missing_ok=True)


@audit.command("verify")
def audit_verify(
    file: Annotated[
        Path | None, typer.Argument(help="Of `kedge audit export`; without one the server's log.")
    ] = None,
    head: Annotated[
        str, typer.Option(help="ID:HASH that was written down before and must still stand.")
    ] = "",
    server: Server = "",
    token_file: TokenFile = None,
    as_json: Json = False,
) -> None:
    """Follow the chain from its first entry; needs no network with a file.

    Exit status: 0 it holds, 2 the file cannot be read, 5 an entry was altered, taken out or put in,
    or the head does not stand.
    """
    wanted = read_head(head) if head else None
    if file is not None:
        found = verify(entries(file), wanted)
    else:
        with connected(server, token_file) as client:
            found = verify(client.audit(), wanted)
    show.verified(found, as_json=as_json)
    if found.broken_id is not None:
        raise TrustError("audit", f"audit entry {found.broken_id} does not hold: {found.why}")
    if found.head is False:
        raise TrustError("audit", f"audit head {head} does not stand", "entries were cut off")


def read_head(text: str) -> tuple[int, str]:
    """Reads ``ID:HASH``.

    Raises:
        InputError: It is none.
    """
    ident, _, digest = text.partition(":")
    if not ident.isdigit() or not digest or set(digest) - set("0123456789abcdef"):
        raise InputError(f"--head {text} is no head", "write ID:HASH as `kedge audit verify` does")
    return int(ident), digest


def entries(path: Path) -> Iterator[AuditEntry]:
    """Reads an export.

    Raises:
        InputError: It cannot be read, or a line is none.
    """
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                yield wire.decode(line, AuditEntry, f"{path} line {number}")
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from None
