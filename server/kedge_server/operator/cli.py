"""``kedge release`` and ``kedge device``; the other commands stand beside."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from kedge_server.operator import attestation_cli, show, show_attestations, show_releases
from kedge_server.operator.device_cli import device
from kedge_server.operator.options import connected, finite
from kedge_server.operator.rollout_cli import rollout
from kedge_server.releases.comparing import Side, compare
from kedge_shared import api
from kedge_shared.attestation import fetch_attestations
from kedge_shared.options import Json, Server, TokenFile

__all__ = ["device", "release", "rollout"]

release = typer.Typer(no_args_is_help=True, help="Releases that were published.")
device.command("attestation")(attestation_cli.attestation)
device.command("verify")(attestation_cli.verify)


@release.command("list")
def release_list(server: Server = "", token_file: TokenFile = None, as_json: Json = False) -> None:
    """List every release with its builds."""
    with connected(server, token_file) as client:
        show_releases.releases(client.releases(), as_json=as_json)


@release.command("show")
def release_show(
    model: str,
    version: str,
    server: Server = "",
    token_file: TokenFile = None,
    as_json: Json = False,
) -> None:
    """Show one release: a build per device class, and what its builder reported of it."""
    with connected(server, token_file) as client:
        found = client.release(model, version)
        reports = {each.device_class: client.build_report(each) for each in found.builds}
    show_releases.release(found, reports, as_json=as_json)


@release.command("compare")
def release_compare(
    model: str,
    before: Annotated[str, typer.Argument(help="Release.")],
    after: Annotated[str, typer.Argument(help="Release that is held against it.")],
    server: Server = "",
    token_file: TokenFile = None,
    as_json: Json = False,
) -> None:
    """Set two releases side by side: size, accuracy, latency, what they were made from."""
    with connected(server, token_file) as client:
        sides = [
            {each.device_class: Side(client.manifest(each), client.build_report(each))
             for each in client.release(model, one).builds}
            for one in (before, after)
        ]  # fmt: skip
    show_releases.comparison(compare(*sides), (before, after), as_json=as_json)


@release.command("bundle")
def release_bundle(
    model: str,
    version: str,
    out: Annotated[Path, typer.Option("--out", help="File to write.")],
    device_class: Annotated[
        list[str] | None, typer.Option(help="Builds to put in; default: all of the release.")
    ] = None,
    device_name: Annotated[
        list[str] | None,
        typer.Option("--device", help="Put this board's signed assignment in; may be repeated."),
    ] = None,
    server: Server = "",
    token_file: TokenFile = None,
    as_json: Json = False,
) -> None:
    """Write a release to one file, for boards without network (`kedge agent install`)."""
    from kedge_server.operator import bundle
    from kedge_shared.transfer import transfer_progress

    with connected(server, token_file) as client:
        found = client.release(model, version)
        with transfer_progress("downloading") as progress:
            made = bundle.make(client, found, device_class or [], device_name or [], out, progress)
    show_releases.bundle(made, as_json=as_json)


@device.command("list")
def device_list(
    device_class: Annotated[str, typer.Option(help="Only boards of this class.")] = "",
    tag: Annotated[str, typer.Option(help="Only boards with this tag, KEY:VALUE.")] = "",
    selector: Annotated[str, typer.Option(help="Only boards that match, in RSQL.")] = "",
    server: Server = "",
    token_file: TokenFile = None,
    as_json: Json = False,
) -> None:
    """List boards with what they run."""
    filters = {"device_class": device_class, "tag": tag, "selector": selector}
    with connected(server, token_file) as client:
        found = client.devices({key: value for key, value in filters.items() if value})
        show.devices(found, as_json=as_json)


@device.command("show")
def device_show(
    name: str, server: Server = "", token_file: TokenFile = None, as_json: Json = False
) -> None:
    """Show one board, what it attests, and every deployment on it."""
    with connected(server, token_file) as client:
        attested = fetch_attestations(client, name, 1)
        found, deployments = client.device(name), client.device_deployments(name)
    if as_json:
        body = {"device": found, "deployments": deployments, "attestation": attested[:1]}
        return show.print_json(body)
    show.device(found, deployments)
    return show_attestations.newest(attested)


@device.command("token")
def device_token(
    count: Annotated[int, typer.Option(help="How many.")] = 1,
    ttl_hours: Annotated[float, typer.Option(help="How long they hold, hours.")] = 24,
    server: Server = "",
    token_file: TokenFile = None,
    as_json: Json = False,
) -> None:
    """Make one-time enrolment tokens. They are shown once."""
    request = api.TokenRequest(
        count=count, ttl_seconds=int(finite("--ttl-hours", ttl_hours) * 3600)
    )
    with connected(server, token_file) as client:
        show.tokens(client.enrolment_tokens(request), as_json=as_json)
