"""``kedge device attestation|verify``: what a board signed that it runs, checked here."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from securesystemslib.signer import Key, SSlibKey

from kedge_server.operator import show_attestations as show
from kedge_server.operator.options import connected
from kedge_shared import signing, wire
from kedge_shared.attestation import (
    ATTESTATION_LIMIT_BYTES,
    AttestationInfo,
    fetch_attestations,
    open_running,
)
from kedge_shared.errors import InputError, StorageError, TrustError
from kedge_shared.options import Json, Server, TokenFile
from kedge_shared.statement import read_envelope

_KEY_LIMIT_BYTES = 4096
KeyFile = Annotated[
    Path | None,
    typer.Option("--key", help="The board's public key, from the board; default: the server's."),
]


def attestation(
    name: Annotated[str, typer.Argument(help="Name of the board.")],
    key: KeyFile = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", help="Write the envelope there, and the key to FILE.pub."),
    ] = None,
    server: Server = "",
    token_file: TokenFile = None,
    as_json: Json = False,
) -> None:
    """Show what a board signed that it runs, newest first; the signature is checked here.

    Exit status: 5 if the newest one does not hold.
    """
    with connected(server, token_file) as client:
        found = fetch_attestations(client, name)
    if not found:
        raise InputError(
            f"{name} has attested nothing", "a board does after its first confirmation or rollback"
        )
    newest = found[0]
    if out is not None:
        _write(out, newest)
    pinned = read_key(key) if key else None
    checked = show.Checked.of(newest, pinned)
    show.attestation(found, checked, as_json=as_json)
    if checked.wrong:
        raise TrustError("attestation", f"the newest attestation of {name}: {checked.wrong}")


def verify(
    file: Annotated[Path, typer.Argument(help="Envelope, as `kedge device attestation --out`.")],
    key: Annotated[Path, typer.Option("--key", help="The board's public key.")],
    as_json: Json = False,
) -> None:
    """Check an attestation without a server: the board's public key is enough.

    Exit status: 5 if it does not hold.
    """
    data = wire.read_limited(file, "attestation", 2 * ATTESTATION_LIMIT_BYTES)
    said = open_running(read_envelope(data, str(file)), read_key(key))
    show.statement(said, as_json=as_json)


def read_key(path: Path) -> Key:
    """Reads a board's public key: PEM, or as ``kedge device attestation --out`` writes it.

    Raises:
        InputError: It is none.
    """
    data = wire.read_limited(path, "public key", _KEY_LIMIT_BYTES)
    try:
        if data.startswith(b"-----BEGIN PUBLIC KEY"):
            found = SSlibKey.from_crypto(load_pem_public_key(data))
            return signing.key_from_dict(signing.key_to_dict(found))
        return signing.key_from_dict(wire.decode(data, dict[str, Any], str(path)))
    except (TrustError, ValueError) as error:
        raise InputError(f"{path}: {error}") from None


def _write(out: Path, found: AttestationInfo) -> None:
    public = out.with_name(f"{out.name}.pub")
    for path, value in ((out, found.envelope), (public, found.key)):
        try:
            with path.open("xb") as file:
                file.write(wire.encode_pretty(value))
        except FileExistsError:
            raise InputError(f"{path} is there already", "name another file") from None
        except OSError as error:
            raise StorageError(f"{path} cannot be written: {error.strerror}") from None
