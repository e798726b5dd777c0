"""``kedge device-class``: the catalogue, and which of its classes this board is."""

from __future__ import annotations

from typing import Annotated

import typer

from kedge_shared.options import Json

app = typer.Typer(no_args_is_help=True, help="Kinds of boards, and which one this is.")


@app.command("list")
def list_classes(as_json: Json = False) -> None:
    """List the classes that Kedge ships."""
    from kedge_shared import wire
    from kedge_shared.device_classes import catalogue

    classes = list(catalogue().values())
    if as_json:
        print(wire.encode_pretty(classes).decode(), end="")
        return
    for each in classes:
        needs = f"{each.runtime.name} {each.runtime.range}"
        typer.echo(f"{each.name:22}{needs:30}{each.title}")


@app.command()
def show(
    name: Annotated[str, typer.Argument(help="Of the catalogue, or a YAML file of your own.")],
    as_json: Json = False,
) -> None:
    """Show a class: what it is, its budgets, and where each number comes from.

    Exit status: 0 shown, 2 there is no such class.
    """
    import msgspec

    from kedge_shared import wire
    from kedge_shared.device_classes import find_class

    found = find_class(name)
    if as_json:
        print(wire.encode_pretty(found).decode(), end="")
        return
    body = {
        key: each for key, each in msgspec.to_builtins(found).items() if each not in ("", [], {})
    }
    body["budgets"] = {key: each for key, each in body["budgets"].items() if each is not None}
    typer.echo(msgspec.yaml.encode(body).decode(), nl=False)


@app.command()
def detect(as_json: Json = False) -> None:
    """Say which class this board is, why, and why it is none of the others.

    Exit status: 0 it is one, 3 none of the catalogue.
    """
    from kedge_agent import facts
    from kedge_shared import detection, wire
    from kedge_shared.device_classes import catalogue
    from kedge_shared.errors import BudgetError

    board = facts.gather()
    found = detection.detect(board, catalogue().values())
    if as_json:
        print(wire.encode_pretty({"facts": board, "detected": found}).decode(), end="")
    else:
        typer.echo(f"{found.device_class or 'no class'}: {found.reason}")
        for each in found.others:
            typer.echo(f"  {'also' if each.hardware else 'not'} {each.name}: {each.reason}")
    if found.device_class is None:
        raise BudgetError(found.reason, "write a class of your own; see `kedge device-class show`")
