"""``kedge prune``."""

from __future__ import annotations

import shutil
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Column, Table

from kedge_builder.compress.chain import PruneOptions, PruneResult
from kedge_shared import wire
from kedge_shared.errors import StorageError
from kedge_shared.options import Json

_EXTRA = ("torch", "torchvision", "ultralytics", "torch_pruning")


def prune(
    weights: Annotated[Path, typer.Argument(help="Trained Ultralytics detection model (.pt).")],
    data: Annotated[Path, typer.Option(help="data.yaml: train, val, names.")],
    keep: Annotated[float, typer.Option(help="Share of the multiply-accumulates to keep, 0..1.")],
    input_size: Annotated[int, typer.Option(help="Input pixels that boards will use.")],
    out: Annotated[Path, typer.Option(help="The pruned checkpoint (.pt).")],
    epochs: Annotated[int, typer.Option(help="Of fine-tuning after each step.")] = 10,
    step: Annotated[
        float, typer.Option(help="Share of the unpruned model's MACs taken by a step.")
    ] = 0.1,
    max_drop: Annotated[
        float, typer.Option(help="mAP50-95 that may be lost on the select split; 0.02 is 2 points.")
    ] = 0.02,
    lr: Annotated[float, typer.Option(help="Learning rate of fine-tuning.")] = 3e-4,
    batch: Annotated[int, typer.Option(help="Images a training step.")] = 16,
    cache: Annotated[
        Path | None, typer.Option(help="Folder for the steps; default: OUT with '.steps' added.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of every draw.")] = 0,
    as_json: Json = False,
) -> None:
    """Make a detector smaller: whole channels go, in small steps with training after each.

    A step that loses more than --max-drop is thrown away and the last good one is kept. Each step
    stays in the cache: the same command goes on where a killed one stopped, and one that goes
    deeper takes up its steps. The result is a checkpoint for `kedge build`.

    Exit status: 0 target reached, 2 bad input, 3 stopped before the target (what is good is
    written all the same).
    """
    for name in _EXTRA:
        if find_spec(name) is None:
            raise ModuleNotFoundError(name, name=name)
    from kedge_builder.compress.prune import prune as run
    from kedge_builder.data.datasets import read_data
    from kedge_builder.models.weights import load
    from kedge_builder.progress import Progress

    options = PruneOptions(macs=keep, step=step, epochs=epochs, size=input_size,
                           max_drop=max_drop, seed=seed, lr=lr, batch=batch)  # fmt: skip
    options.check()
    folder = cache or out.with_name(f"{out.name}.steps")
    trained, found = load(weights), read_data(data, seed=seed)
    result = run(trained, found, options, folder, Progress(quiet=as_json))
    _deliver(result.best, out)
    _show(result, out, as_json=as_json)
    if result.stopped:
        raise typer.Exit(3)


def _deliver(best: Path, out: Path) -> None:
    from kedge_builder.models.checkpoint import put

    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        aside = out.with_name(f".{out.name}.part")
        shutil.copyfile(best, aside)
        put(aside, out)
    except OSError as error:
        raise StorageError(f"{out} cannot be written: {error.strerror}") from None


def _show(result: PruneResult, out: Path, *, as_json: bool) -> None:
    if as_json:
        body = {"out": out, "stopped": result.stopped, "steps": result.steps}
        print(wire.encode_pretty(body).decode(), end="")
        return
    heads = ("step", "MACs", "parameters", "mAP50-95 (select)", "trained at, px", "s")
    table = Table(*(Column(each, no_wrap=True) for each in heads), box=SIMPLE_HEAD)
    for at, each in enumerate(result.steps):
        table.add_row(str(at), f"{each.kept:.1%}", f"{each.parameters:,}",
                      f"{each.map50_95:.3f}", str(each.trained_px or "-"),
                      f"{each.seconds:.0f}")  # fmt: skip
    console = Console()
    console.print(table)
    if result.stopped:
        console.print(f"stopped: {result.stopped}", highlight=False, soft_wrap=True)
    console.print(f"{out}", highlight=False, soft_wrap=True)
