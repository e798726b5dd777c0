"""Another key for a role, and the commands that people type."""

from __future__ import annotations

import os
from collections.abc import Callable

import typer
from securesystemslib.signer import CryptoSigner
from typer.testing import CliRunner

from kedge_agent.tuf_client import ImageRepository
from kedge_builder.publishing.cli import keys, yank
from kedge_builder.publishing.keyring import Keyring
from kedge_builder.publishing.rotation import Change, change, delegate
from kedge_shared import signing
from kedge_shared.trust import model_role
from tests.sim.world import TOKEN, World

ROLE = model_role("shapes")
MANIFEST = "models/shapes/{}/x86-onnxruntime/manifest.json"

Enrol = Callable[[str], ImageRepository]


def replace_key(world: World, role: str, ring: Keyring) -> tuple[CryptoSigner, dict[str, bytes]]:
    """Signs, but does not publish yet, another key for a role."""
    fresh, standing = signing.generate(), world.publisher().standing()
    ring.add(fresh)
    what = Change(role, add=[fresh.public_key], remove=standing.role(role).keyids)
    return fresh, change(standing, what, ring)


def give_to_team(world: World, ring: Keyring) -> CryptoSigner:
    team = signing.generate()
    ring.add(team)
    signed = delegate(world.publisher().standing(), "shapes", team.public_key, ring)
    world.operator.publish_metadata(signed)
    return team


def file_key(world: World, signer: CryptoSigner, name: str) -> None:
    signing.save_private_key(signer, world.trust.offline / f"{name}.key")


app = typer.Typer()
app.add_typer(keys, name="keys")
app.command()(yank)


def kedge(world: World, *arguments: str) -> str:
    """Runs ``kedge keys …`` or ``kedge yank`` as a person would; returns what it prints."""
    os.environ |= {"KEDGE_TOKEN": TOKEN, "KEDGE_SERVER": world.url}
    keys_folder = str(world.trust.offline.parent)
    before = [] if arguments[0] == "yank" else ["keys"]
    wants_keys = [] if arguments[0] == "token" else ["--keys", keys_folder]
    try:
        result = CliRunner().invoke(app, [*before, *arguments, *wants_keys])
    finally:
        del os.environ["KEDGE_TOKEN"], os.environ["KEDGE_SERVER"]
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.output
