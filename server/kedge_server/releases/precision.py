"""In which precision the layers of a build compute, block by block, and why. Pure."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

from kedge_shared.build_report import Block, BuildReport, Layer

_REASONS = 3


@dataclass(frozen=True)
class BlockPrecision:
    """The layers that are switched together.

    Attributes:
        name: Of the block; empty for the layers that belong to none.
        layers: How many.
        precisions: Precision and layers, most first.
        reasons: Why, commonest first; some of them.
        measured: What leaving it float does; ``None``: not measured.
    """

    name: str
    layers: int
    precisions: tuple[tuple[str, int], ...]
    reasons: tuple[str, ...]
    measured: Block | None


def by_block(report: BuildReport) -> tuple[BlockPrecision, ...]:
    """Returns the blocks in the order of the graph."""
    rows: dict[str, list[Layer]] = defaultdict(list)
    for each in report.layers:
        rows[each.block].append(each)
    measured = {each.block: each for each in report.sensitivity}
    return tuple(_block(name, layers, measured.get(name)) for name, layers in rows.items())


def _block(name: str, layers: list[Layer], measured: Block | None) -> BlockPrecision:
    reasons = Counter(each.reason for each in layers)
    precisions = Counter(each.precision for each in layers)
    return BlockPrecision(
        name=name, layers=len(layers), precisions=tuple(precisions.most_common()),
        reasons=tuple(reason for reason, _ in reasons.most_common(_REASONS)), measured=measured,
    )  # fmt: skip


def counted(report: BuildReport) -> Mapping[str, int]:
    """Returns precision → layers, most first."""
    return dict(Counter(each.precision for each in report.layers).most_common())


def in_words(counts: Mapping[str, int]) -> str:
    """Returns ``61 int8, 19 float``."""
    return ", ".join(f"{count} {name}" for name, count in counts.items()) or "none"
