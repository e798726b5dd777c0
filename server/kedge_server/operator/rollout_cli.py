"""``kedge rollout``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from kedge_server.operator import show, show_rollouts
from kedge_server.operator.options import connected, finite, read_tags
from kedge_server.operator.rollout_file import read_rollout, require_sound
from kedge_shared import api
from kedge_shared.errors import BudgetError, InputError, KedgeError
from kedge_shared.options import Json, Server, TokenFile

if TYPE_CHECKING:
    from kedge_shared.client import Client

rollout = typer.Typer(no_args_is_help=True, help="Roll a release out in stages, watch, halt.")


File = Annotated[
    Path | None, typer.Option("--file", "-f", help="YAML that says all of it (docs/rollouts.md).")
]


@rollout.command("create")
def rollout_create(
    context: typer.Context,
    model: Annotated[str, typer.Argument(help="Model, unless -f names it.")] = "",
    version: Annotated[str, typer.Argument(help="Release, unless -f names it.")] = "",
    file: File = None,
    stages: Annotated[str, typer.Option(help="Percent of the fleet after each stage.")] = "20,100",
    selector: Annotated[str, typer.Option(help="Only boards that match, in RSQL.")] = "",
    tag: Annotated[list[str] | None, typer.Option(help="Only boards with KEY:VALUE.")] = None,
    max_failure_share: Annotated[
        float, typer.Option(min=0, max=1, help="Failed devices a stage bears of a class, 0..1.")
    ] = 0,
    min_healthy: Annotated[
        int,
        typer.Option(
            min=0, help="Devices with proof of health a stage needs; 0 is all that have not failed."
        ),
    ] = 0,
    sequential: Annotated[
        bool, typer.Option("--sequential", help="Judge by a sequential test, not by thresholds.")
    ] = False,
    soak_seconds: Annotated[
        float, typer.Option(min=0, help="How long a stage must stay healthy.")
    ] = 60,
    silence_seconds: Annotated[
        float, typer.Option(min=1, help="After so long a silent device has failed.")
    ] = 1800,
    recall: Annotated[bool, typer.Option(help="Go back to an older release.")] = False,
    two_person: Annotated[
        bool, typer.Option("--two-person", help="Two people but you say yes before it begins.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say who would get it, and why not the others.")
    ] = False,
    server: Server = "",
    token_file: TokenFile = None,
    as_json: Json = False,
) -> None:
    """Start a rollout in stages."""
    if file is not None:
        if model or version:
            raise InputError("-f names model and release itself", "leave the arguments out")
        _only_the_file(context)
        spec = read_rollout(file)
    elif not (model and version):
        raise InputError("no model and release", "kedge rollout create MODEL RELEASE, or -f FILE")
    else:
        gate = api.GateSpec(
            max_failure_share=max_failure_share, min_healthy=min_healthy or None,
            soak_seconds=soak_seconds, silence_seconds=silence_seconds,
            sequential=api.SequentialSpec() if sequential else None,
        )  # fmt: skip
        spec = api.RolloutSpec(
            model=model, release=version, tags=read_tags(tag or []), selector=selector,
            stages=tuple(api.StageSpec(percent=each, gate=gate) for each in read_percents(stages)),
            recall=recall, two_person=two_person,
        )  # fmt: skip
        require_sound(spec, "this rollout")
    with connected(server, token_file) as client:
        if dry_run:
            show_rollouts.plan(client.plan_rollout(spec), as_json=as_json)
        else:
            show.rollout(client.create_rollout(spec), as_json=as_json)


#: What says how it is done and not what is wanted: goes with a file.
_BESIDE_FILE = frozenset({"file", "dry_run", "server", "token_file", "as_json"})


def _only_the_file(context: typer.Context) -> None:
    """Checks that nothing is asked for that the file would be taken instead of.

    Raises:
        InputError: An option says something of the rollout too.
    """
    for each in context.command.params:
        source = context.get_parameter_source(each.name or "")
        said = source is not None and source.name == "COMMANDLINE"
        if said and each.name not in _BESIDE_FILE:
            raise InputError(f"{each.opts[0]} beside -f", "the file says all of it: write it there")


@rollout.command("simulate")
def rollout_simulate(
    file: File = None,
    devices: Annotated[
        list[int] | None, typer.Option(min=3, max=1_000_000, help="Size of the fleets.")
    ] = None,
    fleets: Annotated[int, typer.Option(min=2, max=100_000, help="Of each kind.")] = 200,
    seed: Annotated[int, typer.Option(min=0, help="Of the draw.")] = 1,
    as_json: Json = False,
) -> None:
    """Try a gate on simulated fleets: false halts, misses, boards exposed, beside others."""
    from kedge_server.rollouts.simulate.options import power_of

    spec = read_rollout(file) if file is not None else None
    rows = [each for size in devices or [100, 1000] for each in power_of(spec, size, fleets, seed)]
    show_rollouts.power(rows, as_json=as_json)


@rollout.command("replay")
def rollout_replay(
    name: str, server: Server = "", token_file: TokenFile = None, as_json: Json = False
) -> None:
    """Judge every decision of a rollout again from its stored evidence; status 1 if one differs."""
    with connected(server, token_file) as client:
        found = client.replay_rollout(name)
    show_rollouts.replay(found, as_json=as_json)
    different = [str(each.id) for each in found if not each.same]
    if different:
        raise KedgeError(f"decision {', '.join(different)} of {name} comes out different")


@rollout.command("recall")
def rollout_recall(
    model: str,
    version: str,
    server: Server = "",
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
    with connected(server, token_file) as client:
        show.rollout(client.create_rollout(spec), as_json=as_json)


@rollout.command("list")
def rollout_list(server: Server = "", token_file: TokenFile = None, as_json: Json = False) -> None:
    """List every rollout."""
    with connected(server, token_file) as client:
        show.rollouts(client.rollouts(), as_json=as_json)


@rollout.command("show")
def rollout_show(
    name: str, server: Server = "", token_file: TokenFile = None, as_json: Json = False
) -> None:
    """Show one rollout: stages, gates, devices."""
    with connected(server, token_file) as client:
        info, deployments = client.rollout(name), client.rollout_deployments(name)
        show.rollout(info, deployments, as_json=as_json)


@rollout.command("watch")
def rollout_watch(
    name: Annotated[str, typer.Argument(help="Rollout; default: the newest.")] = "",
    every_seconds: Annotated[float, typer.Option(min=0.2, help="Seconds between looks.")] = 2,
    server: Server = "",
    token_file: TokenFile = None,
    as_json: Json = False,
) -> None:
    """Follow a rollout to its end, live; status 0 only if it completed."""
    from kedge_server.operator.live import screen
    from kedge_server.operator.watching import until_final

    finite("--every-seconds", every_seconds)
    with connected(server, token_file) as client:
        name = name or _newest(client)
        with screen(quiet=as_json) as shown:
            for info in until_final(client, name, every_seconds, shown.event, shown.away):
                shown.state(info)
        show.rollout(info, client.rollout_deployments(name), as_json=as_json)
    if info.state != "completed":
        raise BudgetError(f"rollout {name} is {info.state}: {info.reason}")


_CHANGES = {
    "halt": "Stop a rollout; its boards go back to what they had.",
    "pause": "Give no further board the release until resumed.",
    "resume": "Go on with a paused rollout.",
    "stop": "Stop a rollout; its boards keep what they have.",
    "approve": "Say yes for a stage that asks.",
    "retry": "Give boards that failed or could not decide the release again, despite quarantine.",
}


def _changer(action: str) -> Callable[..., None]:
    def run(
        name: str,
        server: Server = "",
        token_file: TokenFile = None,
        as_json: Json = False,
    ) -> None:
        with connected(server, token_file) as client:
            show.rollout(client.change_rollout(name, action), as_json=as_json)

    return run


for _action, _help in _CHANGES.items():
    rollout.command(_action, help=_help)(_changer(_action))


def _newest(client: Client) -> str:
    found = client.rollouts()
    if not found:
        raise InputError("there is no rollout yet", "start one with `kedge rollout create`")
    return found[0].id


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
