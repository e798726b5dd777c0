"""``kedge inspect``."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from kedge_builder.cli import need_extra
from kedge_shared import wire
from kedge_shared.options import Json

if TYPE_CHECKING:
    from kedge_builder.models.inspect import HeadFacts, Inspection

_CLASSES_SHOWN = 8


def inspect(
    source: Annotated[
        str,
        typer.Argument(
            metavar="WEIGHTS_OR_YAML",
            help="Ultralytics detection weights (.pt), an architecture (.yaml), or the name of "
            "one that Ultralytics ships, for example yolo11n.yaml.",
        ),
    ],
    input_size: Annotated[
        int, typer.Option(min=32, max=4096, help="Input pixels, a multiple of the largest stride.")
    ] = 640,
    as_json: Json = False,
) -> None:
    """Show a detector's parameters, GFLOPs, layers, outputs and float zone.

    Counted as deployed: batch norms folded in. Exit status: 0, or 2 for bad input.
    """
    need_extra()
    from kedge_builder.models.inspect import inspect as look

    found = look(source, input_size)
    if as_json:
        print(wire.encode_pretty(asdict(found)).decode(), end="")
    else:
        _show(found, Console())


def _show(found: Inspection, console: Console) -> None:
    size = found.input_size
    table = Table("#", "from", "module", "parameters", f"output at {size} px", box=SIMPLE_HEAD)
    for column in (0, 3):
        table.columns[column].justify = "right"
    for each in found.layers:
        reads = ", ".join(map(str, each.reads))
        row = (str(each.index), reads, each.module, f"{each.parameters:,}", _shape(each.output))
        table.add_row(*row)
    console.print(table)
    kind = found.kind
    lines = [
        f"{found.source}: {kind.family}, scale {kind.scale}"
        + ("" if found.trained else ", untrained (architecture only)"),
        f"{found.parameters:,} parameters, {found.gflops:.2f} GFLOPs at {size} px",
        f"{len(found.classes)} classes: {_names(found.classes)}",
        f"strides {', '.join(map(str, found.strides))}",
        *(_head_line(each) for each in found.heads),
    ]
    for line in lines:
        console.print(line, highlight=False, markup=False, soft_wrap=True)


def _head_line(head: HeadFacts) -> str:
    after = "needs suppression" if head.needs_suppression else "end to end, no suppression"
    return (
        f"head {head.head} ({after}): {_shape(head.output)}; float zone {head.zone_nodes} nodes, "
        f"{head.float_convolutions} convolutions stay float, {head.int8_convolutions} go to INT8"
    )


def _names(classes: tuple[str, ...]) -> str:
    more = len(classes) - _CLASSES_SHOWN
    return ", ".join(classes[:_CLASSES_SHOWN]) + (f" and {more} more" if more > 0 else "")


def _shape(shape: tuple[int, ...]) -> str:
    return " × ".join(map(str, shape))
