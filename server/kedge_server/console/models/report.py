"""The builder's report of a build as pages show it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from kedge_server.artifacts.store import Store
from kedge_server.console.models.builds import Build
from kedge_server.console.models.front import Dot, Front, lay_out
from kedge_server.releases.precision import BlockPrecision, by_block, counted, in_words
from kedge_shared.attachments import LIMITS_BYTES, REPORT
from kedge_shared.build_report import BuildReport, Layer, Search, read_build_report
from kedge_shared.errors import KedgeError

#: Of each list; pages that show all of it page.
CLASSES_SHOWN, LAYERS_SHOWN = 12, 200


@dataclass(frozen=True)
class Shown:
    """A report.

    Attributes:
        report: It; ``None`` if there is none that can be read.
        fault: Why it cannot be read; empty if it can, or there is none.
        blocks: Layers block by block.
        precisions: How many layers compute in which precision, in words.
        front: Points of a search, drawn; ``None`` where nothing was searched.
    """

    report: BuildReport | None = None
    fault: str = ""
    blocks: tuple[BlockPrecision, ...] = ()
    precisions: str = ""
    front: Front | None = None

    @property
    def losses(self) -> list[tuple[str, float]]:
        """Classes that lost most."""
        if self.report is None:
            return []
        return sorted(self.report.loss.per_class.items(), key=lambda each: -each[1])


def read(store: Store, build: Build) -> tuple[BuildReport | None, str]:
    """Returns a build's report, or why it cannot be read; neither where there is none."""
    if not build.report:
        return None, ""
    try:
        body = store.read(build.report, LIMITS_BYTES[REPORT])
        return read_build_report(body, build.manifest_sha256), ""
    except KedgeError as error:
        return None, str(error)


def shown(store: Store, build: Build) -> Shown:
    """Returns a build's report as its release's page shows it."""
    report, fault = read(store, build)
    if report is None:
        return Shown(fault=fault)
    return Shown(
        report, "", by_block(report), in_words(counted(report)),
        _front(report.search, f"search-{build.device_class}") if report.search else None,
    )  # fmt: skip


def _front(search: Search, name: str) -> Front:
    """Draws what was searched; its axis shows medians, as the search judged by them."""
    dots = [
        Dot(each.title, each.latency_p50_ms, each.map50_95, solid=each.feasible,
            ring=each.picked, said=each.why,
            label=each.title if each.picked else "baseline" if each.baseline else "")
        for each in search.points
    ]  # fmt: skip
    return lay_out(
        dots, name, title="Accuracy against frame time of what was searched",
        across_title="frame time, median, ms →", up_title="↑ mAP 50–95, select images",
    )  # fmt: skip


def points(loss: float) -> str:
    """Returns a loss in points; what came out better than float has a minus. Pure."""
    return f"{100 * loss:.2f}".replace("-", "−")


def matching(layers: Sequence[Layer], text: str, precision: str) -> list[Layer]:
    """Returns layers of a precision (empty is any) that have a text in their fields. Pure."""
    wanted = text.strip().casefold()
    return [
        each for each in layers
        if (not precision or each.precision == precision)
        and (not wanted or any(wanted in field.casefold() for field in
                               (each.name, each.operator, each.block, each.reason)))
    ]  # fmt: skip
