"""``kedge agent``."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Annotated, Any

import typer

from kedge_shared.options import Json

app = typer.Typer(no_args_is_help=True, help="The agent on an edge board.")
Config = Annotated[
    Path,
    typer.Option(
        "--config", envvar="KEDGE_AGENT_CONFIG", help="Configuration of the board (YAML)."
    ),
]


@app.command()
def run(config: Config) -> None:
    """Run updater and runner until stopped.

    Exit status: 0 stopped, 2 bad configuration or token, 6 another agent runs on the state
    directory, 7 the disk cannot be written.
    """
    from kedge_agent.supervisor import supervise

    status = asyncio.run(supervise(config))
    if status:
        raise typer.Exit(status)


@app.command()
def status(
    config: Config,
    as_json: Json = False,
) -> None:
    """Show what the board runs and where its last update stands.

    Exit status: 0 the loop runs, 1 it does not.
    """
    from kedge_agent.settings import read_settings
    from kedge_agent.status import gather
    from kedge_shared import wire

    found = gather(read_settings(config))
    if as_json:
        print(wire.encode_pretty(found).decode(), end="")
    else:
        typer.echo(found.line())
    if not found.running:
        raise typer.Exit(1)


@app.command()
def schema() -> None:
    """Print the JSON schema of the configuration."""
    import json

    from kedge_agent.settings import schema as schema_of

    print(json.dumps(schema_of(), indent=2))


@app.command()
def doctor(config: Config, as_json: Json = False) -> None:
    """Look for what would keep this board from updating, and say how to mend it.

    Exit status: 0 nothing found, 1 something would not work.
    """
    from kedge_agent import doctor as examination
    from kedge_agent.settings import read_settings
    from kedge_shared import wire

    findings = examination.examine(read_settings(config))
    if as_json:
        print(wire.encode_pretty(findings).decode(), end="")
    else:
        for each in findings:
            typer.echo(each.line())
    if any(each.state == "bad" for each in findings):
        raise typer.Exit(1)


@app.command()
def fingerprint(config: Config, as_json: Json = False) -> None:
    """Print the fingerprint of the board's key, which is made if there is none yet.

    For a factory's list (`kedge device announce`) and for approving (`kedge device approve`).
    """
    from kedge_agent.identity import device_key
    from kedge_agent.settings import read_settings
    from kedge_shared import wire

    settings = read_settings(config)
    found = device_key(settings.state_dir).public_key.keyid
    if as_json:
        shown = {"device": settings.device, "fingerprint": found}
        print(wire.encode_pretty(shown).decode(), end="")
    else:
        typer.echo(found)


@app.command("new-key")
def new_key(config: Config) -> None:
    """Make another key for the board; the agent changes to it when it next reaches the server.

    Exit status: 0 made, 2 the board is not enrolled, 7 the disk cannot be written or one waits.
    """
    from kedge_agent import access, identity
    from kedge_agent.settings import read_settings
    from kedge_shared import signing
    from kedge_shared.errors import InputError

    folder = read_settings(config).state_dir
    if identity.load(folder) is None:
        raise InputError("this board is not enrolled", "its first key is made by itself")
    fresh = signing.generate()
    signing.save_private_key(fresh, access.next_key(folder))
    typer.echo(fresh.public_key.keyid)


@app.command()
def rollback(
    config: Config,
    reason: Annotated[str, typer.Option(help="Why; the server and the quarantine keep it.")] = (
        "an operator at the board"
    ),
    as_json: Json = False,
) -> None:
    """Make the previous engine serve again; ends an update that is under way.

    The engine that is left is not taken again by itself.
    Exit status: 0 it serves, 2 there is none to go back to, 6 the agent is away.
    """
    from kedge_agent.commands.protocol import GoBack

    _command(config, GoBack(reason[:300]), {"rolled_back", "refused"}, as_json=as_json)


@app.command()
def install(bundle: Path, config: Config, as_json: Json = False) -> None:
    """Install a release from a bundle (a file or folder that `kedge release bundle` wrote).

    It is verified, tried and watched like one from the server.
    Exit status: 0 confirmed, 3 refused or rolled back, 5 not to be trusted, 6 the agent is away.
    """
    from kedge_agent.commands.protocol import InstallBundle

    _command(config, InstallBundle(str(bundle.resolve())), {"confirmed"}, as_json=as_json)


def _command(config: Path, command: Any, wanted: set[str], *, as_json: bool) -> None:
    from kedge_agent.commands import client
    from kedge_agent.settings import read_settings
    from kedge_shared import wire
    from kedge_shared.errors import BudgetError

    state_dir = read_settings(config).state_dir
    deployment = client.ask(state_dir, command)

    def told(seen: Any) -> None:
        if not as_json:
            typer.echo(f"{seen.phase.value} {seen.verdict.reason}".rstrip())

    final = client.follow(state_dir, deployment, told)
    if as_json:
        print(wire.encode_pretty(final).decode(), end="")
    if final.phase.value not in wanted:
        raise BudgetError(f"{final.release or final.id}: {final.phase.value}")
