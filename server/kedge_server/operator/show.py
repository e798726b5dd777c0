"""How the operator's commands show what the server said: tables for people, JSON for machines."""

from __future__ import annotations

import time
from collections.abc import Sequence

from rich.console import Console
from rich.table import Column, Table
from rich.text import Text

from kedge_server.operator.bundle import Made
from kedge_server.operator.comparing import Difference
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


def bundle(made: Made, *, as_json: bool) -> None:
    """Shows what a bundle holds."""
    if as_json:
        print_json(made)
        return
    table = made.table
    classes = ", ".join(each.device_class for each in table.builds)
    _console.print(f"{made.path}: {table.model} {table.release} for {classes}, "
                   f"{made.size_bytes / 1e6:.1f} MB")  # fmt: skip
    _console.print(f"assignments: {', '.join(table.devices) or 'none'}")
    _console.print(f"boards take it until {made.expires}")


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


def releases(found: Sequence[api.ReleaseInfo], *, as_json: bool) -> None:
    """Shows releases, newest first."""
    if as_json:
        return print_json(found)
    rows = [
        (each.model, each.release, str(each.release_counter),
         "taken back by its owners" if each.taken_back else ", ".join(
            build.device_class + (" (overridden)" if build.overrides else "")
            for build in each.builds
        ))
        for each in found
    ]  # fmt: skip
    return print_table(
        "Releases",
        ("model", "release", "counter", "builds"),
        rows,
        "No release yet: build one with `kedge build`, then `kedge publish`.",
    )


def release(found: api.ReleaseInfo, *, as_json: bool) -> None:
    """Shows one release."""
    if as_json:
        return print_json(found)
    rows = [
        (
            each.device_class,
            each.engine[:12],
            f"{each.size_bytes / 2**20:.1f} MiB",
            each.verdict,
            ", ".join(each.overrides),
        )
        for each in found.builds
    ]
    columns = ("device class", "engine", "size", "verdict", "overrides")
    return print_table(f"{found.model} {found.release}", columns, rows, "No build.")


def comparison(found: Sequence[Difference], names: tuple[str, str], *, as_json: bool) -> None:
    """Shows two releases side by side."""
    if as_json:
        return print_json(found)
    rows = [
        (each.device_class, each.what, _figure(each.what, each.before),
         _figure(each.what, each.after),
         each.note if each.change is None else f"{each.change:+.1%}")
        for each in found
    ]  # fmt: skip
    columns = ("class", "what", *names, "change")
    return print_table("Releases compared", columns, rows, "Neither has a build.")


def _figure(what: str, value: float | str | None) -> str:
    if value is None:
        return "none"
    if isinstance(value, str):
        return value
    return f"{value / 2**20:.2f} MiB" if what.endswith("_bytes") else f"{value:.4g}"


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
