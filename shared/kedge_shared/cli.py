"""The ``kedge`` command: collects sub-commands by entry points and shows errors as one line."""

from __future__ import annotations

import os
import sys
from importlib.metadata import EntryPoint, entry_points
from typing import Annotated, Any, NoReturn

import typer

from kedge_shared import __version__
from kedge_shared.errors import KedgeError

#: Click's ClickException, of which newer typers hold a copy under a private name: what both show
#: is its grandchild.
_ClickError: type[Exception] = typer.BadParameter.__mro__[2]

#: Exit statuses as a shell gives them to what SIGINT and SIGPIPE end.
_INTERRUPTED, _READER_GONE = 130, 141

#: Which extra brings what a command imports.
EXTRA_OF = {
    "agent": "agent",
    "audit": "operator",
    "bench": "agent",
    "bench-job": "operator",
    "bench-worker": "agent",
    "build": "builder",
    "config": "operator",
    "device": "operator",
    "events": "operator",
    "device-class": "agent",
    "explain": "builder",
    "fleet": "operator",
    "inspect": "builder",
    "keys": "builder",
    "login": "operator",
    "logout": "operator",
    "prune": "builder",
    "publish": "builder",
    "release": "operator",
    "rollout": "operator",
    "server": "server",
    "token": "operator",
    "user": "operator",
    "webhook": "operator",
    "whoami": "operator",
}


def _version(show: bool) -> None:
    if show:
        typer.echo(f"kedge {__version__}")
        raise typer.Exit


def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Over-the-air updates for vision models."""


def missing(command: str, error: ImportError) -> NoReturn:
    """Says which extra a command wants, and ends with status 2."""
    extra = EXTRA_OF.get(command, command)
    typer.echo(
        f"kedge: '{command}' needs the {extra} extra ({error.name} is not installed); "
        f"install it with: pip install 'kedge[{extra}]'",
        err=True,
    )
    raise typer.Exit(2)


def build_app() -> typer.Typer:
    """Returns the command with every sub-command that is installed.

    A sub-command whose package cannot be imported stays listed; calling it says what to install.
    """
    app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False)
    app.callback()(_root)
    for entry in sorted(entry_points(group="kedge.commands"), key=lambda each: each.name):
        _add(app, entry)
    return app


def _add(app: typer.Typer, entry: EntryPoint) -> None:
    try:
        target = entry.load()
    except ImportError as error:
        _add_missing(app, entry.name, error)
        return
    if isinstance(target, typer.Typer):
        app.add_typer(target, name=entry.name)
    else:
        app.command(entry.name)(target)


def _add_missing(app: typer.Typer, name: str, error: ImportError) -> None:
    extra = EXTRA_OF.get(name, name)
    settings = {"ignore_unknown_options": True, "allow_extra_args": True, "help_option_names": []}

    @app.command(name, help=f"(needs the {extra} extra)", context_settings=settings)
    def stand_in() -> None:
        missing(name, error)


def main() -> None:
    """Runs the command; the one place where errors become a line and an exit status."""
    try:
        status = _run()
    except _ClickError as error:
        status = _say_usage(error)
    except KedgeError as error:
        typer.echo(f"kedge: {error}", err=True)
        status = error.exit_code
    except ImportError as error:
        status = _say_import(error)
    except typer.Abort:
        typer.echo("kedge: not answered, so not done", err=True)
        status = 1
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status = _READER_GONE
    sys.exit(status)


def _run() -> int:
    """Runs the command and returns its exit status; raises what it raises, and usage errors."""
    try:
        status = build_app()(standalone_mode=False)
        sys.stdout.flush()
    except SystemExit as ended:
        # Typer ends with 1 where the reader of what we print went away in the middle.
        if isinstance(ended.__context__, BrokenPipeError):
            raise ended.__context__ from None
        raise
    if status == _INTERRUPTED:  # what typer makes of Ctrl-C
        typer.echo("kedge: stopped", err=True)
    return status if isinstance(status, int) else 0


def _say_usage(error: Any) -> int:
    """Says in one line what is wrong with the command line; a group alone gets its help."""
    if type(error).__name__ == "NoArgsIsHelpError":
        error.show()
    else:
        context = getattr(error, "ctx", None)
        see = f" (see '{context.command_path} --help')" if context is not None else ""
        typer.echo(f"kedge: {' '.join(error.format_message().split())}{see}", err=True)
    return int(error.exit_code)


def _say_import(error: ImportError) -> int:
    """Says which extra brings a package that is not installed."""
    if (error.name or "").partition(".")[0].startswith("kedge_"):
        raise error  # ours is never missing: a bug, and no extra mends it
    command = sys.argv[1] if len(sys.argv) > 1 else "kedge"
    typer.echo(
        f"kedge: '{command}' needs {error.name}; install it with: "
        f"pip install 'kedge[{EXTRA_OF.get(command, command)}]' (and the runtime's extra)",
        err=True,
    )
    return 2
