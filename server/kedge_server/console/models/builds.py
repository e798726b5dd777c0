"""A build as pages show it: what its signed manifest says. Pure."""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass

from kedge_server.console import words
from kedge_server.releases.figures import FIGURES, LATENCY, figures_of
from kedge_server.releases.tables import BuildRow
from kedge_shared.manifest import Manifest, read_manifest

_FLOAT_BLOCKS = "float_blocks"


@dataclass(frozen=True)
class Build:
    """A build.

    Attributes:
        device_class: What it is for.
        manifest: As signed.
        manifest_sha256: Of its bytes.
        provenance: Hash of the statement of where it came from; empty without one.
        report: Hash of the published part of the builder's report; empty without one.
        listed: It is among the signed targets now.
    """

    device_class: str
    manifest: Manifest
    manifest_sha256: str
    provenance: str
    listed: bool
    report: str = ""

    @property
    def key(self) -> tuple[str, str, str]:
        """What boards that run it report: class, release, engine."""
        return self.device_class, self.manifest.release, self.manifest.engine_hash

    @property
    def address(self) -> str:
        """Where its manifest is sent from."""
        folder, _, name = self.manifest.target_path.rpartition("/")
        return f"/tuf/targets/{folder}/{self.manifest_sha256}.{name}"

    @property
    def figures(self) -> dict[str, float]:
        """What was measured, and the size, by name."""
        return figures_of(self.manifest)

    @property
    def machines(self) -> tuple[str, ...]:
        """What it was measured on."""
        return tuple(dict.fromkeys(each.machine for each in self.manifest.measured))

    @property
    def form(self) -> str:
        """How its numbers are written, as far as the manifest says."""
        recipe = self.manifest.provenance.recipe
        plan = recipe.get("plan", "")
        return " · ".join(each for each in (recipe.get("form", ""), plan) if each)

    @property
    def float_layers(self) -> tuple[str, ...] | None:
        """Blocks that stay float where the rest is quantized; ``None`` if it does not say."""
        said = self.manifest.provenance.recipe.get(_FLOAT_BLOCKS)
        return None if said is None else names_in(said)


def build_of(row: BuildRow, listed: Container[str]) -> Build:
    """Returns a stored build."""
    manifest = read_manifest(row.manifest)
    return Build(row.device_class, manifest, row.manifest_sha256, row.provenance,
                 row.manifest_path in listed, row.report)  # fmt: skip


def names_in(text: str) -> tuple[str, ...]:
    """Reads a list of blocks; ``none`` is an empty one."""
    names = tuple(each.strip() for each in text.split(",") if each.strip())
    return () if names == ("none",) else names


def written(figure: str, value: float | None) -> str:
    """Returns a figure with its unit."""
    if value is None:
        return "–"
    unit = FIGURES[figure].unit if figure in FIGURES else ""
    digits = 3 if not unit else 2 if abs(value) < 10 else 1
    return f"{words.number(value, digits)} {unit}".rstrip()


def judged(build: Build) -> list[tuple[str, str, str, str]]:
    """Returns the budgets of a build: name, limit, what was measured, and pass or fail.

    Where the manifest holds no figure, that one is empty, and the last says who judges it.
    """
    limits, board, builder = build.manifest.budgets, "judged on the board", "judged by the builder"
    engine = sum(each.length for each in build.manifest.engine_files) / 2**20
    rows = (
        ("Frame time, p95", limits.latency_p95_ms, "ms", build.figures.get(LATENCY), builder),
        ("Engine's files", limits.artifact_mb, "MiB", engine, builder),
        ("Frame time against the active engine", limits.latency_ratio, "times", None, board),
        ("Memory that it adds", limits.memory_mb, "MiB", None, builder),
        ("Loss of mAP 50–95 against float", limits.accuracy_drop, "", None, builder),
    )
    return [
        (name, f"{limit:g} {unit}".rstrip(),
         "" if value is None else f"{value:.4g} {unit}".rstrip(),
         by if value is None else "pass" if value <= limit else "fail")
        for name, limit, unit, value, by in rows if limit is not None
    ]  # fmt: skip
