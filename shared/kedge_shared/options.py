"""Options that commands of several parts take, written once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from kedge_shared.errors import KedgeError


def _server_names(begun: str) -> list[str]:
    """Returns what a shell may complete: names of the configuration."""
    from kedge_shared.servers import config_path, read_config

    try:
        return [each for each in read_config(config_path()).servers if each.startswith(begun)]
    except KedgeError:
        # A shell that completes shows no errors; the command itself will.
        return []


Server = Annotated[
    str,
    typer.Option(
        "--server",
        envvar="KEDGE_SERVER",
        autocompletion=_server_names,
        help="Address of the server, or its name (`kedge config list`).",
    ),
]
TokenFile = Annotated[
    Path | None,
    typer.Option("--token-file", envvar="KEDGE_TOKEN_FILE", help="File with the operator token."),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON for machines.")]
