"""``kedge bench-job``: measurements that builders ordered of boards."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Annotated

import typer

from kedge_server.operator.options import connected
from kedge_server.operator.show import print_json, print_table
from kedge_shared.bench import BenchJobInfo
from kedge_shared.options import Json, Server, TokenFile

bench_job = typer.Typer(no_args_is_help=True, help="Measurements ordered of boards elsewhere.")
Job = Annotated[str, typer.Argument(metavar="ID", help="Of `kedge bench-job list`.")]


@bench_job.command("list")
def bench_list(
    most: Annotated[int, typer.Option(min=1, max=100, help="How many.")] = 50,
    server: Server = "",
    token_file: TokenFile = None,
    as_json: Json = False,
) -> None:
    """List the newest jobs."""
    with connected(server, token_file) as client:
        _show(client.bench_jobs(most), as_json=as_json)


@bench_job.command("show")
def bench_show(
    job: Job, server: Server = "", token_file: TokenFile = None, as_json: Json = False
) -> None:
    """Show one job; --json holds what was measured."""
    with connected(server, token_file) as client:
        found = client.bench_job(job)
    if as_json:
        return print_json(found)
    return _show([found], as_json=False)


@bench_job.command("withdraw")
def bench_withdraw(
    job: Job, server: Server = "", token_file: TokenFile = None, as_json: Json = False
) -> None:
    """Let nobody begin a job any more."""
    with connected(server, token_file) as client:
        found = client.withdraw_bench_job(job)
    if as_json:
        return print_json(found)
    return _show([found], as_json=False)


def _show(found: Sequence[BenchJobInfo], *, as_json: bool) -> None:
    if as_json:
        return print_json(found)
    rows = [
        (each.id, each.device_class, each.state, each.device or "nobody yet", str(each.attempts),
         time.strftime("%Y-%m-%d %H:%M", time.gmtime(each.posted)))
        for each in found
    ]  # fmt: skip
    columns = ("job", "class", "state", "taken by", "attempts", "posted (UTC)")
    return print_table("Bench jobs", columns, rows, "No job: `kedge build --bench-server`.")
