"""``kedge keys`` and ``kedge publish``."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Annotated

import typer

from kedge_shared import wire
from kedge_shared.signing import PASSPHRASE_ENV

keys = typer.Typer(no_args_is_help=True, help="Keys of the fleet.")


@keys.callback()
def _keys() -> None:
    """Keys of the fleet."""


@keys.command("init")
def init(
    out: Annotated[Path, typer.Option("--out", help="New folder for the keys.")] = Path("keys"),
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for machines.")] = False,
) -> None:
    """Make root, targets, snapshot, timestamp and director keys and sign the first metadata.

    Private keys are encrypted when KEDGE_KEY_PASSPHRASE is set, else readable by you alone.
    """
    from kedge_builder.publishing.keys import create

    places = create(out)
    if as_json:
        body = {name: str(getattr(places, name)) for name in ("offline", "online", "root")}
        print(wire.encode_pretty(body).decode(), end="")
        return
    sealed = "encrypted" if os.environ.get(PASSPHRASE_ENV) else "plain, mode 0600"
    typer.echo(f"{places.offline}: root and targets keys ({sealed}). Keep them off the server.")
    typer.echo(f"{places.online}: snapshot, timestamp and director keys, for the server.")
    typer.echo(f"{places.root}: pin this on every board.")
    typer.echo(f"next: kedge server run --data server-data --trust {out}")


@keys.command("bench")
def bench(
    out: Annotated[Path, typer.Option("--out", help="File for the private key.")] = Path(
        "bench.key"
    ),
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for machines.")] = False,
) -> None:
    """Make a key that orders measurements on bench workers, and nothing else."""
    from kedge_builder.publishing.keys import create_bench

    public = create_bench(out)
    if as_json:
        print(wire.encode_pretty({"private": str(out), "public": str(public)}).decode(), end="")
        return
    typer.echo(f"{out}: signs bench jobs; stays with the builder.")
    typer.echo(f"{public}: name it in trusted_keys of each worker's configuration.")


def publish(
    builds: Annotated[list[Path], typer.Argument(help="Folders that `kedge build` wrote.")],
    server: Annotated[
        str, typer.Option("--server", envvar="KEDGE_SERVER", help="Address of the server.")
    ],
    keys_folder: Annotated[
        Path, typer.Option("--keys", help="Folder that `kedge keys init` wrote.")
    ] = Path("keys"),
    policy: Annotated[
        Path | None, typer.Option(help="Model policy; default: policy/ beside the builds.")
    ] = None,
    state: Annotated[
        Path | None, typer.Option(help="This publisher's trusted state; default: KEYS/state.")
    ] = None,
    token_file: Annotated[
        Path | None, typer.Option(envvar="KEDGE_TOKEN_FILE", help="File with the operator token.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for machines.")] = False,
) -> None:
    """Sign builds and their model policy, and bring them to the server."""
    from kedge_builder.publishing.keys import KeySet
    from kedge_builder.publishing.publish import gather
    from kedge_builder.publishing.publish import publish as bring
    from kedge_builder.publishing.repository import TrustedState
    from kedge_builder.publishing.upload_progress import upload_progress
    from kedge_shared.client import Client, read_token
    from kedge_shared.signing import load_private_key

    places = KeySet.at(keys_folder)
    bundle = gather(builds, policy)
    signer = load_private_key(places.offline / "targets.key")
    with (
        Client(server, read_token(token_file)) as client,
        tempfile.TemporaryDirectory(prefix="kedge-publish-") as scratch,
        upload_progress() as progress,
    ):
        trusted = TrustedState(
            state or keys_folder / "state", places.root, client.server, client.http
        )
        result = bring(bundle, client, trusted, signer, progress, Path(scratch))
    if as_json:
        print(wire.encode_pretty(result).decode(), end="")
        return
    typer.echo(
        f"published {bundle.model} {bundle.release}: {len(bundle.targets) - 1} build(s), "
        f"targets version {result.targets}"
    )
