"""``kedge agent``."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(no_args_is_help=True, help="The agent on an edge board.")
Config = Annotated[Path, typer.Option("--config", help="Configuration of the board (YAML).")]


@app.command()
def run(config: Config) -> None:
    """Run updater and runner until stopped.

    Exit status: 0 stopped, 2 bad configuration or token, 7 the disk cannot be written.
    """
    from kedge_agent.supervisor import supervise

    status = asyncio.run(supervise(config))
    if status:
        raise typer.Exit(status)


@app.command()
def status(
    config: Config,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for machines.")] = False,
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
