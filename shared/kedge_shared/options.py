"""Options that commands of several parts take, written once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Server = Annotated[
    str,
    typer.Option(
        "--server",
        envvar="KEDGE_SERVER",
        help="Address of the server, or its name (`kedge config list`).",
    ),
]
TokenFile = Annotated[
    Path | None,
    typer.Option("--token-file", envvar="KEDGE_TOKEN_FILE", help="File with the operator token."),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON for machines.")]
