"""``kedge fleet``: how it is, what it measures, and who signs for it."""

from __future__ import annotations

import time
from enum import Enum
from typing import Annotated

import typer

from kedge_server.operator import show_fleet
from kedge_server.operator.options import connected, finite
from kedge_shared.errors import KedgeError
from kedge_shared.options import Json, Server, TokenFile

fleet = typer.Typer(no_args_is_help=True, help="The fleet as a whole.")


class Level(str, Enum):
    """Of sums."""

    HOUR = "hour"
    DAY = "day"


@fleet.command("health")
def fleet_health(
    check: Annotated[
        bool, typer.Option("--check", help="Status 1 if a person must see to something.")
    ] = False,
    server: Server = "",
    token_file: TokenFile = None,
    as_json: Json = False,
) -> None:
    """Show boards by class, what they run, open rollouts, and what runs out when."""
    with connected(server, token_file) as client:
        found = client.fleet()
        show_fleet.health(found, as_json=as_json)
    needs = show_fleet.needs(found, time.time())
    if check and needs:
        raise KedgeError(f"to be seen to: {'; '.join(needs)}")


@fleet.command("telemetry")
def fleet_telemetry(
    level: Annotated[Level, typer.Option(help="By the hour or by the day.")] = Level.HOUR,
    spans: Annotated[
        int, typer.Option(min=1, max=1000, help="How many hours or days, up to now.")
    ] = 24,
    device_class: Annotated[str, typer.Option(help="Only boards of this class.")] = "",
    release: Annotated[str, typer.Option(help="Only boards that ran this release.")] = "",
    server: Server = "",
    token_file: TokenFile = None,
    as_json: Json = False,
) -> None:
    """Show frames, drops, errors and frame times by device class and release."""
    seconds = 3600 if level is Level.HOUR else 86400
    since = finite("--spans", time.time() - spans * seconds)
    with connected(server, token_file) as client:
        found = client.telemetry(
            level.value, device_class=device_class, release=release, since=since
        )
    show_fleet.telemetry(found, as_json=as_json)


@fleet.command("trust")
def fleet_trust(server: Server = "", token_file: TokenFile = None, as_json: Json = False) -> None:
    """Show which keys sign what and until when, as the server tells it.

    Nothing is checked here: boards do that, and `kedge keys list` from a pinned root.
    """
    from kedge_server.operator.trust_view import roles

    with connected(server, token_file) as client:
        show_fleet.trust(roles(client), as_json=as_json)
