"""``kedge bench-worker``."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Annotated

import typer


def bench_worker(
    config: Annotated[Path, typer.Option("--config", help="Configuration of the worker (YAML).")],
    once: Annotated[bool, typer.Option("--once", help="End after one job was answered.")] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print each result as a line of JSON.")
    ] = False,
) -> None:
    """Measure candidates that a trusted builder signed, on this board.

    Exit status: 0 stopped, or measured with --once; 1 with --once the job was refused or failed;
    2 bad configuration or token; 7 the disk cannot be written.
    """
    from kedge_agent.bench.settings import read_bench_settings
    from kedge_agent.bench.worker import run
    from kedge_shared import wire
    from kedge_shared.bench import BenchResult

    def show(result: BenchResult) -> None:
        if as_json:
            print(wire.encode(result).decode(), flush=True)

    last = asyncio.run(run(read_bench_settings(config), once=once, answered=show))
    if last is not None and last.failure is not None:
        raise typer.Exit(1)
