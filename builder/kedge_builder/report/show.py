"""How ``kedge build`` shows what came of it."""

from __future__ import annotations

from collections.abc import Sequence

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Column, Table

from kedge_builder.pipeline import BuildResult
from kedge_builder.recipe import BuildOptions
from kedge_shared import wire

_COLOURS = {"pass": "green", "overridden": "green", "missed": "red", "undecided": "yellow"}


def _times(before: float | None, after: float | None) -> str:
    return "unmeasured" if before is None or after is None else f"{before:.1f} → {after:.1f}"


def show_results(results: Sequence[BuildResult], options: BuildOptions, *, as_json: bool) -> None:
    """Prints a table and the reasons, or one JSON object."""
    if as_json:
        body = {
            each.device_class: {
                "verdict": each.decision.verdict,
                "reasons": list(each.decision.reasons),
                "folder": str(each.folder),
                "float": each.report["float"],
                "built": each.report["built"],
                "drop": each.report["drop"]["map50_95"],
            }
            for each in results
        }
        print(wire.encode_pretty(body).decode(), end="")
        return
    console = Console()
    heads = ("device class", "verdict", "mAP50-95", "drop", "p95 ms", "MiB")
    table = Table(
        *(Column(each, no_wrap=True) for each in heads),
        box=SIMPLE_HEAD,
        padding=(0, 1),
        pad_edge=False,
    )
    for each in results:
        before, after = each.report["float"], each.report["built"]
        table.add_row(
            each.device_class,
            f"[{_COLOURS[each.decision.verdict]}]{each.decision.verdict}",
            f"{before['map50_95'] * 100:.1f} → {after['map50_95'] * 100:.1f}",
            f"{each.report['drop']['map50_95']['estimate'] * 100:+.2f}",
            _times(before["latency_p95_ms"], after["latency_p95_ms"]),
            f"{before['size_bytes'] / 2**20:.1f} → {after['size_bytes'] / 2**20:.1f}",
        )
    console.print(table)
    for each in results:
        for reason in each.decision.reasons:
            console.print(f"  {each.device_class}: {reason}", highlight=False, soft_wrap=True)
        console.print(f"  {each.folder / 'report.html'}", highlight=False, soft_wrap=True)
    if options.policy is None:
        console.print(
            f"A model policy is proposed in {options.out / 'policy' / 'policy.json'}: "
            f"label score at least {results[0].report['accuracy_floor']:.2f}. Review it.",
            highlight=False,
            soft_wrap=True,
        )
