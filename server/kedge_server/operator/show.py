"""How the operator's commands show what the server said: tables for people, JSON for machines."""

from __future__ import annotations

import time
from collections.abc import Sequence

from rich.console import Console
from rich.table import Column, Table
from rich.text import Text

from kedge_shared import api, wire
from kedge_shared.errors import one_line

_console = Console()
#: State, phase or verdict → style.
COLOURS = {
    "completed": "green",
    "passed": "green",
    "confirmed": "green",
    "halted": "red",
    "failed": "red",
    "refused": "red",
    "rolled_back": "red",
    "paused": "yellow",
    "proposed": "yellow",
    "revoked": "red",
    "suspected clone": "red",
}


def print_json(value: object) -> None:
    """Prints a value for machines."""
    print(wire.encode_pretty(value).decode(), end="")


def whole(title: str) -> Column:
    """Returns a column of what is copied into another command: never cut short."""
    return Column(title, no_wrap=True)


def say(line: str) -> None:
    """Prints a line, however long; what boards and builders wrote cannot drive the terminal."""
    print("".join(each if each.isprintable() else "\N{REPLACEMENT CHARACTER}" for each in line))


def print_table(
    title: str, columns: Sequence[str | Column], rows: Sequence[Sequence[str]], empty: str
) -> None:
    """Prints rows for people, or what to say where there are none."""
    if not rows:
        _console.print(empty)
        return
    # What boards and builders wrote is text, whatever it looks like.
    table = Table(*columns, title=Text(one_line(title)), title_justify="left")
    for row in rows:
        table.add_row(*(Text(one_line(cell), style=COLOURS.get(cell, "")) for cell in row))
    _console.print(table)


def _ago(moment: float | None) -> str:
    return "never" if moment is None else f"{span(max(0.0, time.time() - moment))} ago"


def span(seconds: float) -> str:
    """Returns a time as people say it: ``40 s``, ``12 min``, ``5 h``, ``9 days``."""
    for unit, size, most in (("s", 1, 120), ("min", 60, 7200), ("h", 3600, 172_800)):
        if seconds < most:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds / 86400:.0f} days"


def devices(found: Sequence[api.DeviceInfo], *, as_json: bool) -> None:
    """Shows boards."""
    if as_json:
        return print_json(found)
    rows = [
        (
            each.id,
            each.device_class,
            each.release or ("nothing yet" if each.serves else "measures only"),
            _stands(each),
            "" if each.latency_p95_ms is None else f"{each.latency_p95_ms:.1f} ms",
            _ago(each.last_seen),
        )
        for each in found
    ]
    return print_table(
        "Devices",
        ("device", "class", "runs", "phase", "p95", "last seen"),
        rows,
        "No device yet: make a token with `kedge device token` and start an agent with it.",
    )


def _stands(found: api.DeviceInfo) -> str:
    if found.revoked is not None:
        return "revoked"
    return "suspected clone" if found.suspected_clone is not None else found.phase.value


def device(found: api.DeviceInfo, deployments: Sequence[api.DeploymentInfo]) -> None:
    """Shows one board with its history."""
    devices([found], as_json=False)
    facts = found.facts
    say(f"key {found.fingerprint}")
    say("tags " + (" ".join(f"{key}:{value}" for key, value in found.tags.items()) or "none"))
    runtimes = ", ".join(f"{name} {version}" for name, version in facts.runtimes.items())
    say(f"{facts.arch}, {facts.memory_mb} MB, agent {facts.agent}, {runtimes or 'no runtime'}")
    if found.suspected_clone is not None:
        _console.print(Text(one_line(f"suspected clone: {found.suspicion}")))
    _deployments(deployments)


def tokens(made: Sequence[api.EnrolmentToken], *, as_json: bool) -> None:
    """Shows fresh tokens, one a line, so that a script can read them."""
    if as_json:
        return print_json(made)
    for each in made:
        print(each.token)
    return None


def rollouts(found: Sequence[api.RolloutInfo], *, as_json: bool) -> None:
    """Shows rollouts, newest first."""
    if as_json:
        return print_json(found)
    rows = [
        (each.id, f"{each.model} {each.release}", each.state, _stage_line(each), each.reason)
        for each in found
    ]
    columns = (whole("rollout"), "release", whole("state"), "stages", "why")
    return print_table(
        "Rollouts", columns, rows, "No rollout yet: `kedge rollout create MODEL RELEASE`."
    )


def rollout(
    found: api.RolloutInfo,
    deployments: Sequence[api.DeploymentInfo] = (),
    *,
    as_json: bool = False,
) -> None:
    """Shows one rollout with its stages and devices."""
    if as_json:
        return print_json({"rollout": found, "deployments": deployments})
    rows = [
        (
            each.title,
            each.state,
            f"{each.healthy}/{each.devices}",
            str(each.failed),
            str(each.undecided),
            str(each.pending),
            each.reason,
        )
        for each in found.stages
    ]
    title = f"{found.id}: {found.model} {found.release}, {found.state}. {found.reason}"
    columns = ("stage", "state", "healthy", "failed", "undecided", "pending", "gate")
    print_table(title, columns, rows, "No stage.")
    return _deployments(deployments) if deployments else None


def progress_line(found: api.RolloutInfo) -> str:
    """Returns one line of where a rollout stands."""
    return one_line(f"{found.state}. {_stage_line(found)}. {found.reason}")


def _stage_line(found: api.RolloutInfo) -> str:
    return ", ".join(
        f"{each.title}: {each.healthy}/{each.devices}"
        + (f" ({each.failed} failed)" if each.failed else "")
        for each in found.stages
    )


def _deployments(found: Sequence[api.DeploymentInfo]) -> None:
    rows = [
        (
            each.device,
            each.release,
            each.phase.value,
            each.verdict.code,
            "silent" if each.silent else each.verdict.reason,
            _ago(each.updated),
        )
        for each in sorted(found, key=lambda each: -each.assigned)
    ]
    columns = ("device", "release", "phase", "verdict", "why", "updated")
    print_table("Deployments", columns, rows, "No deployment yet.")
