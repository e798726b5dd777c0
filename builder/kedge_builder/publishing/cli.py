"""``kedge keys`` and ``kedge publish``."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from kedge_shared import wire
from kedge_shared.options import Json, Server, TokenFile
from kedge_shared.signing import PASSPHRASE_ENV
from kedge_shared.trust import model_role

if TYPE_CHECKING:
    from tuf.api.metadata import DelegatedRole, Role

keys = typer.Typer(no_args_is_help=True, help="Keys of the fleet.")
Keys = Annotated[Path, typer.Option("--keys", help="Folder that `kedge keys init` wrote.")]


@keys.callback()
def _keys() -> None:
    """Keys of the fleet."""


@keys.command("init")
def init(
    out: Annotated[Path, typer.Option("--out", help="New folder for the keys.")] = Path("keys"),
    as_json: Json = False,
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
    as_json: Json = False,
) -> None:
    """Make a key that orders measurements on bench workers, and nothing else."""
    from kedge_builder.publishing.keys import create_pair

    public = create_pair(out)
    if as_json:
        print(wire.encode_pretty({"private": str(out), "public": str(public)}).decode(), end="")
        return
    typer.echo(f"{out}: signs bench jobs; stays with the builder.")
    typer.echo(f"{public}: name it in trusted_keys of each worker's configuration.")


@keys.command("new")
def new(
    out: Annotated[Path, typer.Option("--out", help="File for the private key.")],
    as_json: Json = False,
) -> None:
    """Make a key pair: for a second person at root, or for a model's team.

    It signs nothing until `kedge keys add` or `delegate` names its public part. The private one is
    encrypted when KEDGE_KEY_PASSPHRASE is set, else readable by you alone.
    """
    from kedge_builder.publishing.keys import create_pair

    public = create_pair(out)
    line = f"{out}: stays with its owner; {public}: for `kedge keys add ROLE --key {public}`"
    _say({"private": str(out), "public": str(public)}, line, as_json=as_json)


@keys.command("list")
def list_(
    server: Server = "",
    keys_folder: Keys = Path("keys"),
    token_file: TokenFile = None,
    as_json: Json = False,
) -> None:
    """Show who signs what, and which of the keys are at hand."""
    from kedge_builder.publishing.changes import Desk
    from kedge_builder.publishing.show import show_roles

    with Desk(keys_folder, server, token_file) as desk:
        roles = desk.roles()
    if as_json:
        print(wire.encode_pretty(roles).decode(), end="")
        return
    show_roles(roles)


@keys.command("rotate")
def rotate(
    role: Annotated[
        str, typer.Argument(help="root, targets, snapshot, timestamp, director, model-NAME.")
    ],
    server: Server = "",
    keys_folder: Keys = Path("keys"),
    token_file: TokenFile = None,
    as_json: Json = False,
) -> None:
    """Replace a role's keys by a fresh one; what they had signed is signed anew.

    The server must hold a new snapshot, timestamp or director key first: this says so, and goes on
    when it is run again. Exit status: 2 keys are missing here, 6 the server refuses.
    """
    from kedge_builder.publishing.changes import Desk

    with Desk(keys_folder, server, token_file) as desk:
        path = desk.rotate(role)
    line = f"{role}: signed by {path} from now on; the older key is worth nothing any more"
    _say({"role": role, "key": str(path)}, line, as_json=as_json)


@keys.command("add")
def add(
    role: Annotated[str, typer.Argument(help="root, targets or model-NAME.")],
    key: Annotated[Path, typer.Option("--key", help="Public key: a .pub or .signer.json file.")],
    server: Server = "",
    threshold: Annotated[
        int | None, typer.Option(min=1, help="How many keys must sign from now on.")
    ] = None,
    keys_folder: Keys = Path("keys"),
    token_file: TokenFile = None,
    as_json: Json = False,
) -> None:
    """Let another key sign for a role too."""
    from kedge_builder.publishing.changes import Desk
    from kedge_builder.publishing.keyring import read_public

    with Desk(keys_folder, server, token_file) as desk:
        found = desk.change(role, add=[read_public(key)], threshold=threshold)
    _say_role(role, found, as_json=as_json)


@keys.command("revoke")
def revoke(
    role: Annotated[str, typer.Argument(help="root, targets or model-NAME.")],
    keyid: Annotated[str, typer.Argument(help="Key id, or the start of it (`kedge keys list`).")],
    server: Server = "",
    threshold: Annotated[
        int | None, typer.Option(min=1, help="How many keys must sign from now on.")
    ] = None,
    keys_folder: Keys = Path("keys"),
    token_file: TokenFile = None,
    as_json: Json = False,
) -> None:
    """Take a key away from a role; what it signed is signed anew by the others."""
    from kedge_builder.publishing.changes import Desk

    with Desk(keys_folder, server, token_file) as desk:
        found = desk.change(role, remove=[desk.full_id(role, keyid)], threshold=threshold)
    _say_role(role, found, as_json=as_json)


@keys.command("delegate")
def delegate(
    model: Annotated[str, typer.Argument(help="Name of the model.")],
    server: Server = "",
    key: Annotated[
        Path | None, typer.Option("--key", help="The team's public key; default: a fresh one.")
    ] = None,
    keys_folder: Keys = Path("keys"),
    token_file: TokenFile = None,
    as_json: Json = False,
) -> None:
    """Let a model's team sign its own releases and policy, and nothing else."""
    from kedge_builder.publishing.changes import Desk

    with Desk(keys_folder, server, token_file) as desk:
        where = desk.delegate(model, key)
    line = f"{where}: signs {model} from now on; give it to the team, with the public root"
    _say({"model": model, "role": model_role(model), "key": str(where)}, line, as_json=as_json)


@keys.command("push")
def push(
    server: Server = "",
    keys_folder: Keys = Path("keys"),
    token_file: TokenFile = None,
    as_json: Json = False,
) -> None:
    """Give a server that was restored from a backup the newer metadata that this machine knows.

    Nothing is signed. Builds published after the backup are published again first.
    """
    from kedge_builder.publishing.changes import Desk

    with Desk(keys_folder, server, token_file) as desk:
        found = desk.push()
    line = f"offered: {', '.join(found)}" if found else "the server has everything"
    _say({"offered": found}, line, as_json=as_json)


@keys.command("token")
def token(
    out: Annotated[Path, typer.Option("--out", help="File, such as keys/offline/root.signer.json")],
    keyid: Annotated[int, typer.Option("--id", help="Of the key pair, in the token.")] = 2,
    label: Annotated[str | None, typer.Option(help="Label of the token.")] = None,
    as_json: Json = False,
) -> None:
    """Describe a key in a PKCS#11 token, to sign with it.

    PYKCS11LIB names the token's library, KEDGE_HSM_PIN its PIN. `kedge keys add ROLE --key FILE`
    lets it sign.
    """
    from kedge_builder.publishing.keyring import import_token
    from kedge_builder.publishing.keys import write_public

    found = import_token(keyid, label)
    write_public(out, found)
    body = {"file": str(out), "uri": found.uri, "keyid": found.key["keyid"]}
    _say(body, f"{out}: names the key; it stays in the token", as_json=as_json)


def yank(
    model: Annotated[str, typer.Argument(help="Name of the model.")],
    release: Annotated[str, typer.Argument(help="Release that is taken back.")],
    server: Server = "",
    fallback: Annotated[
        str | None,
        typer.Option(help="Release that boards which run it move to; signed into the policy."),
    ] = None,
    keys_folder: Keys = Path("keys"),
    token_file: TokenFile = None,
    as_json: Json = False,
) -> None:
    """Take a release back: no board installs it any more, and its rollouts are halted.

    Boards that run it move to the release that the model policy names as its fallback, else to the
    newest rollout that stands. Exit status: 2 it is not listed, the fallback is no release that
    stands or keys are missing here, 6 the server refuses.
    """
    from kedge_builder.publishing.changes import Desk

    with Desk(keys_folder, server, token_file) as desk:
        to = desk.take_back(model, release, fallback)
    where = f"boards that run it move to {to}" if to else "boards go by the rollouts that stand"
    line = f"{model} {release} is listed no more; its rollouts were halted, {where}"
    _say({"model": model, "release": release, "fallback": to}, line, as_json=as_json)


def publish(
    builds: Annotated[list[Path], typer.Argument(help="Folders that `kedge build` wrote.")],
    server: Server = "",
    keys_folder: Keys = Path("keys"),
    policy: Annotated[
        Path | None, typer.Option(help="Model policy; default: policy/ beside the builds.")
    ] = None,
    state: Annotated[
        Path | None, typer.Option(help="This publisher's trusted state; default: KEYS/state.")
    ] = None,
    token_file: TokenFile = None,
    as_json: Json = False,
) -> None:
    """Sign builds and their model policy, and bring them to the server."""
    from kedge_builder.publishing.keyring import Keyring
    from kedge_builder.publishing.keys import KeySet
    from kedge_builder.publishing.publish import gather
    from kedge_builder.publishing.publish import publish as bring
    from kedge_builder.publishing.repository import TrustedState
    from kedge_shared.client import Client
    from kedge_shared.transfer import transfer_progress

    places = KeySet.at(keys_folder)
    bundle = gather(builds, policy)
    ring = Keyring.load(places.offline)
    with (
        Client.open(server, token_file) as client,
        tempfile.TemporaryDirectory(prefix="kedge-publish-") as scratch,
        transfer_progress("uploading") as progress,
    ):
        trusted = TrustedState(
            state or keys_folder / "state", places.root, client.server, client.http
        )
        result = bring(bundle, client, trusted, ring, progress, Path(scratch))
    if as_json:
        print(wire.encode_pretty(result).decode(), end="")
        return
    typer.echo(
        f"published {bundle.model} {bundle.release}: {len(bundle.targets) - 1} build(s), "
        f"targets version {result.targets}"
    )


def _say(body: object, line: str, *, as_json: bool) -> None:
    if as_json:
        print(wire.encode_pretty(body).decode(), end="")
        return
    typer.echo(line)


def _say_role(role: str, found: Role | DelegatedRole, *, as_json: bool) -> None:
    line = f"{role}: {found.threshold} of {len(found.keyids)} keys sign"
    body = {"role": role, "threshold": found.threshold, "keys": list(found.keyids)}
    _say(body, line, as_json=as_json)
