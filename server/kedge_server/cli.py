"""``kedge server``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from kedge_server.operation import cli as operation

app = typer.Typer(no_args_is_help=True, help="The server: artifacts, devices, rollouts.")


@app.callback()
def _server() -> None:
    """The server: artifacts, devices, rollouts."""


@app.command()
def run(
    data: Annotated[Path, typer.Option(help="Folder for database and artifacts.")],
    trust: Annotated[Path, typer.Option(help="Folder that `kedge keys init` wrote.")],
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on.")] = 8470,
    tick_seconds: Annotated[float, typer.Option(help="Between two looks at gates.")] = 2.0,
    poll_seconds: Annotated[float, typer.Option(help="What devices are told to wait.")] = 30.0,
) -> None:
    """Run the server until stopped. Further settings: KEDGE_SERVER_* variables."""
    from pydantic import ValidationError

    from kedge_server.serve import serve
    from kedge_server.settings import ServerSettings
    from kedge_shared.errors import InputError

    try:
        settings = ServerSettings(
            data=data,
            trust=trust,
            host=host,
            port=port,
            tick_seconds=tick_seconds,
            poll_seconds=poll_seconds,
        )
    except ValidationError as error:
        first = error.errors()[0]
        raise InputError(f"setting {first['loc'][0]}: {first['msg']}") from None
    serve(settings)


for _command in (operation.backup, operation.restore, operation.check, operation.collect):
    app.command()(_command)
