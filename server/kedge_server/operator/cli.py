"""``kedge release``, ``kedge rollout`` and ``kedge device``."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from kedge_server.operator import show
from kedge_shared import api
from kedge_shared.errors import BudgetError, InputError

if TYPE_CHECKING:
    from kedge_shared.client import Client

release = typer.Typer(no_args_is_help=True, help="Releases that were published.")
rollout = typer.Typer(no_args_is_help=True, help="Roll a release out in stages, watch, halt.")
device = typer.Typer(no_args_is_help=True, help="The boards of the fleet.")

Server = Annotated[
    str, typer.Option("--server", envvar="KEDGE_SERVER", help="Address of the server.")
]
TokenFile = Annotated[
    Path | None,
    typer.Option("--token-file", envvar="KEDGE_TOKEN_FILE", help="File with the operator token."),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON for machines.")]
DEFAULT_SERVER = "http://127.0.0.1:8470"


@contextmanager
def _client(server: str, token_file: Path | None) -> Iterator[Client]:
    from kedge_shared.client import Client, read_token

    with Client(server, read_token(token_file)) as client:
        yield client


@release.command("list")
def release_list(
    server: Server = DEFAULT_SERVER, token_file: TokenFile = None, as_json: Json = False
) -> None:
    """List every release with its builds."""
    with _client(server, token_file) as client:
        show.releases(client.releases(), as_json=as_json)


@release.command("show")
def release_show(
    model: str,
    version: str,
    server: Server = DEFAULT_SERVER,
    token_file: TokenFile = None,
    as_json: Json = False,
) -> None:
    """Show one release: a build per device class."""
    with _client(server, token_file) as client:
        show.release(client.release(model, version), as_json=as_json)


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
    server: Server = DEFAULT_SERVER,
    token_file: TokenFile = None,
    as_json: Json = False,
) -> None:
    """Write a release to one file, for boards without network (`kedge agent install`)."""
    from kedge_server.operator import bundle

    with _client(server, token_file) as client:
        found = client.release(model, version)
        made = bundle.make(client, found, device_class or [], device_name or [], out)
    show.bundle(made, as_json=as_json)


@device.command("list")
def device_list(
    device_class: Annotated[str, typer.Option(help="Only boards of this class.")] = "",
    tag: Annotated[str, typer.Option(help="Only boards with this tag, KEY:VALUE.")] = "",
    server: Server = DEFAULT_SERVER,
    token_file: TokenFile = None,
    as_json: Json = False,
) -> None:
    """List boards with what they run."""
    filters = {"device_class": device_class, "tag": tag}
    with _client(server, token_file) as client:
        found = client.devices({key: value for key, value in filters.items() if value})
        show.devices(found, as_json=as_json)


@device.command("show")
def device_show(
    name: str, server: Server = DEFAULT_SERVER, token_file: TokenFile = None, as_json: Json = False
) -> None:
    """Show one board and every deployment on it."""
    with _client(server, token_file) as client:
        show.device(client.device(name), client.device_deployments(name), as_json=as_json)


@device.command("token")
def device_token(
    count: Annotated[int, typer.Option(help="How many.")] = 1,
    ttl_hours: Annotated[float, typer.Option(help="How long they hold, hours.")] = 24,
    server: Server = DEFAULT_SERVER,
    token_file: TokenFile = None,
    as_json: Json = False,
) -> None:
    """Make one-time enrolment tokens. They are shown once."""
    request = api.TokenRequest(
        count=count, ttl_seconds=int(_finite("--ttl-hours", ttl_hours) * 3600)
    )
    with _client(server, token_file) as client:
        show.tokens(client.enrolment_tokens(request), as_json=as_json)


@rollout.command("create")
def rollout_create(
    model: str,
    version: str,
    stages: Annotated[str, typer.Option(help="Percent of the fleet after each stage.")] = "20,100",
    max_failure_share: Annotated[
        float, typer.Option(help="Failed devices a stage bears, 0..1.")
    ] = 0,
    min_healthy: Annotated[
        int,
        typer.Option(
            help="Devices with proof of health a stage needs; 0 is all that have not failed."
        ),
    ] = 0,
    soak_seconds: Annotated[float, typer.Option(help="How long a stage must stay healthy.")] = 60,
    silence_seconds: Annotated[
        float, typer.Option(help="After so long a silent device has failed.")
    ] = 1800,
    tag: Annotated[list[str] | None, typer.Option(help="Only boards with KEY:VALUE.")] = None,
    recall: Annotated[bool, typer.Option(help="Go back to an older release.")] = False,
    server: Server = DEFAULT_SERVER,
    token_file: TokenFile = None,
    as_json: Json = False,
) -> None:
    """Start a rollout in stages."""
    gate = api.GateSpec(
        max_failure_share=max_failure_share,
        min_healthy=min_healthy or None,
        soak_seconds=soak_seconds,
        silence_seconds=silence_seconds,
    )
    spec = api.RolloutSpec(
        model=model,
        release=version,
        stages=tuple(api.StageSpec(percent=each, gate=gate) for each in read_percents(stages)),
        tags=read_tags(tag or []),
        recall=recall,
    )
    with _client(server, token_file) as client:
        show.rollout(client.create_rollout(spec), as_json=as_json)


@rollout.command("recall")
def rollout_recall(
    model: str,
    version: str,
    server: Server = DEFAULT_SERVER,
    token_file: TokenFile = None,
    as_json: Json = False,
) -> None:
    """Take every board back to an older release, at once."""
    # A recall never halts itself: halting sends boards to what they had, which is what is being
    # recalled. Failed and silent boards are borne, counted and named, and still get the release
    # when they come back.
    gate = api.GateSpec(max_failure_share=1.0, soak_seconds=0)
    stage = api.StageSpec(percent=100, gate=gate)
    spec = api.RolloutSpec(model=model, release=version, stages=(stage,), recall=True)
    with _client(server, token_file) as client:
        show.rollout(client.create_rollout(spec), as_json=as_json)


@rollout.command("list")
def rollout_list(
    server: Server = DEFAULT_SERVER, token_file: TokenFile = None, as_json: Json = False
) -> None:
    """List every rollout."""
    with _client(server, token_file) as client:
        show.rollouts(client.rollouts(), as_json=as_json)


@rollout.command("show")
def rollout_show(
    name: str, server: Server = DEFAULT_SERVER, token_file: TokenFile = None, as_json: Json = False
) -> None:
    """Show one rollout: stages, gates, devices."""
    with _client(server, token_file) as client:
        info, deployments = client.rollout(name), client.rollout_deployments(name)
        show.rollout(info, deployments, as_json=as_json)


@rollout.command("watch")
def rollout_watch(
    name: Annotated[str, typer.Argument(help="Rollout; default: the newest.")] = "",
    every_seconds: Annotated[float, typer.Option(min=0.2, help="Seconds between looks.")] = 2,
    server: Server = DEFAULT_SERVER,
    token_file: TokenFile = None,
    as_json: Json = False,
) -> None:
    """Follow a rollout to its end; status 0 only if it completed."""
    _finite("--every-seconds", every_seconds)
    with _client(server, token_file) as client:
        name = name or _newest(client)
        for info in _until_final(client, name, every_seconds):
            if not as_json:
                show.progress(info)
        show.rollout(info, client.rollout_deployments(name), as_json=as_json)
    if info.state != "completed":
        raise BudgetError(f"rollout {name} is {info.state}: {info.reason}")


@rollout.command("halt")
def rollout_halt(name: str, server: Server = DEFAULT_SERVER, token_file: TokenFile = None) -> None:
    """Stop a rollout; its boards go back to what they had."""
    _change(name, "halt", server, token_file)


@rollout.command("pause")
def rollout_pause(name: str, server: Server = DEFAULT_SERVER, token_file: TokenFile = None) -> None:
    """Give no further board the release until resumed."""
    _change(name, "pause", server, token_file)


@rollout.command("resume")
def rollout_resume(
    name: str, server: Server = DEFAULT_SERVER, token_file: TokenFile = None
) -> None:
    """Go on with a paused rollout."""
    _change(name, "resume", server, token_file)


def _change(name: str, action: str, server: str, token_file: Path | None) -> None:
    with _client(server, token_file) as client:
        show.rollout(client.change_rollout(name, action))


def _finite(option: str, value: float) -> float:
    if not math.isfinite(value):
        raise InputError(f"{option} {value} is no span of time")
    return value


def _newest(client: Client) -> str:
    found = client.rollouts()
    if not found:
        raise InputError("there is no rollout yet", "start one with `kedge rollout create`")
    return found[0].id


def _until_final(client: Client, name: str, every_seconds: float) -> Iterator[api.RolloutInfo]:
    while True:
        info = client.rollout(name)
        yield info
        if info.state not in {"running", "paused"}:
            return
        time.sleep(every_seconds)


def read_percents(text: str) -> list[float]:
    """Reads ``"5,20,100"``.

    Raises:
        InputError: Not growing numbers above 0, up to 100.
    """
    try:
        percents = [float(each) for each in text.split(",")]
    except ValueError:
        percents = []
    if (
        not percents
        or sorted(set(percents)) != percents
        or not 0 < percents[0] <= percents[-1] <= 100
    ):
        raise InputError(f"stages {text!r} are not growing percents", "write for example 5,20,100")
    return percents


def read_tags(tags: list[str]) -> dict[str, str]:
    """Reads ``["site:north"]``.

    Raises:
        InputError: A tag has no colon.
    """
    pairs = [each.partition(":") for each in tags]
    for key, colon, value in pairs:
        if not (key and colon and value):
            raise InputError(f"tag {key!r} has no value", "write KEY:VALUE")
    return {key: value for key, _, value in pairs}
