"""``kedge explain``: a build from its folder, a board from its server; neither needs torch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated

import typer

from kedge_builder.publishing.keys import KeySet
from kedge_builder.publishing.origin import known_of, origin_of
from kedge_builder.report.explain import Answer, Overview, layer, overview
from kedge_builder.report.explain_device import explain_device, origin_lines
from kedge_builder.report.explain_device import lines as device_lines
from kedge_builder.report.reading import BlockRow, read_report
from kedge_shared import wire
from kedge_shared.client import Client
from kedge_shared.errors import InputError, TrustError
from kedge_shared.options import Json, Server, TokenFile
from kedge_shared.origin import Origin
from kedge_shared.servers import resolve


def explain(
    what: Annotated[
        Path, typer.Argument(help="Folder of one class that `kedge build` wrote, or a board.")
    ],
    layer_name: Annotated[
        str, typer.Option("--layer", help="Exact name of a layer, or of a block: model.4.")
    ] = "",
    keys: Annotated[
        Path, typer.Option("--keys", help="Folder of `kedge keys init`, to check who signed.")
    ] = Path("keys"),
    server: Server = "",
    token_file: TokenFile = None,
    as_json: Json = False,
) -> None:
    """Say why a build is as it is, or what a board runs and where that came from.

    A build: its verdict, its plan, the precision of every layer, its provenance. A board: what it
    signed that it runs, and the provenance of that. Exit status: 0, 2 for bad input, 5 if a
    signature does not hold.
    """
    if not what.exists() and what == Path(what.name) and not layer_name:
        return _explain_device(what.name, keys, server, token_file, as_json=as_json)
    report, origin = read_report(what), None
    found = layer(report, layer_name) if layer_name else overview(report)
    if isinstance(found, Overview):
        origin = _origin(what, report.device_class, keys, report.model)
    if as_json:
        body = wire.encode_pretty(found)
        if origin is not None:
            body = wire.encode_pretty({**wire.decode(body, dict, "answer"), "origin": origin})
        return typer.echo(body.decode(), nl=False)
    lines = list(_answer(found) if isinstance(found, Answer) else _overview(found))
    if origin is not None:
        lines += ["", *origin_lines(origin)]
    for line in lines:
        typer.echo(_printable(line))
    return _refuse(origin)


def _origin(build: Path, device_class: str, keys: Path, model: str) -> Origin:
    folder = build if (build / "report.json").is_file() else build / device_class
    known = known_of(keys, model) if KeySet.at(keys).root.is_file() else None
    return origin_of(folder, known)


def _explain_device(
    device: str, keys: Path, server: str, token_file: Path | None, *, as_json: bool
) -> None:
    try:
        target = resolve(server, token_file)
    except InputError as error:
        said = f"there is no folder {device}, and no board can be asked for: {error.what}"
        raise InputError(said, error.mend) from None
    with Client.of(target) as client:
        found = explain_device(client, device, keys)
    if as_json:
        return typer.echo(wire.encode_pretty(found).decode(), nl=False)
    for line in device_lines(found):
        typer.echo(_printable(line))
    return _refuse(found.origin)


def _refuse(origin: Origin | None) -> None:
    if origin is not None and origin.state == "bad":
        raise TrustError("provenance", f"provenance does not hold: {origin.reason}")


def _overview(found: Overview) -> Iterator[str]:
    yield f"{found.model} {found.release} for {found.device_class}: {found.verdict}"
    yield from (f"  {each}" for each in found.reasons)
    for each in found.overrides:
        yield f"  accepted by a person: {each['budget']}: {each['reason']}"
    yield from (f"  {each}" for each in found.notes)
    why = "taken by the search" if found.search else found.plan_reason
    yield from ("", f"plan: {found.plan}", f"  {why}")
    climbed = ", ".join(found.rungs) or "none"
    yield f"  rungs climbed: {climbed} (a loss over {found.aim * 100:.2f} points is climbed for)"
    yield from _candidates(found)
    yield from _search(found)
    yield from _float_blocks(found)
    yield from ("", "layers")
    for count in found.layers:
        yield f"  {count.layers:>4} {count.precision:<7}  {count.reason}"
    of = f" of {found.calibration_pool}" if found.calibration_pool is not None else ""
    said = found.calibration_verdict or "not compared with the evaluation data"
    yield from ("", f"calibration: {found.calibration_images} images{of}: {said}")
    yield from (f"  {each}" for each in found.calibration_reasons)
    yield from ("", "made from")
    yield from (f"  {key}: {value}" for key, value in found.provenance.items())


def _candidates(found: Overview) -> Iterator[str]:
    rows = [("candidate", "select mAP50-95", "drop, points (95 %)", "distortion", "MiB")]
    for each in found.candidates:
        interval = f"({each.drop_low * 100:+.2f} to {each.drop_high * 100:+.2f})"
        name = f"{each.name} (taken)" if each.taken else each.name
        rows.append((name, f"{each.select_map50_95:.4f}", f"{each.drop * 100:+.2f} {interval}",
                     f"{each.distortion:.4f}", f"{each.bytes / 2**20:.2f}"))  # fmt: skip
    yield from ("", *_table(rows))


def _search(found: Overview) -> Iterator[str]:
    if search := found.search:
        yield from ("", f"search for the {search.goal}: {search.picked}")
        yield f"  {search.reason}"
        yield f"  {search.points} points measured, {search.failed} could not be built"


def _float_blocks(found: Overview) -> Iterator[str]:
    if found.float_blocks:
        yield from ("", "float blocks")
    for each in found.float_blocks:
        said = _block(each.measured) if each.measured else "not measured"
        yield f"  {each.name} ({each.layers} layers): {said}"


def _answer(found: Answer) -> Iterator[str]:
    if len(found.layers) == 1 and found.layers[0].name == found.name:
        (row,) = found.layers
        yield f"{row.name} ({row.operator}): {row.precision}"
        yield f"  why: {row.reason}"
        yield f"  block: {row.block or 'none, it lies in the float zone'}"
    else:
        yield f"block {found.name}: {len(found.layers)} layers"
        yield from _table([(e.name, e.operator, e.precision, e.reason) for e in found.layers])
    said = _block(found.sensitivity) if found.sensitivity else ""
    yield f"  float instead: {said}{', ' if said else ''}{found.sensitivity_of}"


def _block(row: BlockRow) -> str:
    cost = (
        "its time not measured" if row.ms_added is None else f"{row.ms_added:.2f} ms a frame added"
    )
    return (
        f"{row.distortion_saved:+.4f} distortion saved, {row.points_gained:+.2f} points on the "
        f"select images, {cost}"
    )


def _table(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    widths = [max(len(each) for each in column) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = (each.ljust(width) for each, width in zip(row, widths, strict=True))
        yield f"  {'  '.join(cells)}".rstrip()


def _printable(line: str) -> str:
    """Keeps terminal commands out: a report may come from elsewhere."""
    return "".join(each if each.isprintable() else "�" for each in line)
