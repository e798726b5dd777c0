"""Two releases side by side as a page writes them. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from kedge_server.console.models.builds import Build, written
from kedge_server.releases.comparing import Difference, Side, compare
from kedge_server.releases.figures import title
from kedge_shared.build_report import BuildReport

_DIGITS = 12


@dataclass(frozen=True)
class Line:
    """A figure or a setting of both, in words.

    Attributes:
        name: What it is.
        one: As the first has it; empty if it has none.
        other: As the second has it.
        change: better, worse, changed, or same.
        said: How it differs; empty if the same.
    """

    name: str
    one: str
    other: str
    change: str
    said: str = ""


@dataclass(frozen=True)
class Pair:
    """The builds of one class.

    Attributes:
        device_class: It.
        one: Of the first release; ``None`` if it has none for the class.
        other: Of the second.
        figures: Every figure.
        changed: Settings that differ.
        same: How many settings do not.
    """

    device_class: str
    one: Build | None
    other: Build | None
    figures: tuple[Line, ...] = ()
    changed: tuple[Line, ...] = ()
    same: int = 0


#: A build with its report, if that was published.
Read = tuple[Build, BuildReport | None]


def pairs(one: Mapping[str, Read], other: Mapping[str, Read]) -> list[Pair]:
    """Returns both releases' builds by class."""
    found = compare(*({name: Side(build.manifest, report) for name, (build, report) in each.items()}
                      for each in (one, other)))  # fmt: skip
    return [
        Pair(
            each.device_class, _build(one, each.device_class), _build(other, each.device_class),
            tuple(map(_figure, each.figures)), tuple(map(_setting, each.settings)), each.same,
        )
        for each in found
    ]  # fmt: skip


def _build(builds: Mapping[str, Read], name: str) -> Build | None:
    return builds[name][0] if name in builds else None


def _figure(found: Difference[float]) -> Line:
    before, after = found.before, found.after
    said = found.note
    if before is not None and after is not None and found.change != "same" and not said:
        by = f"{'+' if after > before else '−'}{written(found.what, abs(after - before))}"
        share = "" if found.ratio is None else f" ({found.ratio:+.1%})".replace("-", "−")
        said = f"{by}{share}"
    return Line(
        title(found.what), written(found.what, before), written(found.what, after),
        found.change, said,
    )  # fmt: skip


def _setting(found: Difference[str]) -> Line:
    before, after = found.before or "", found.after or ""
    if found.what.endswith("sha256"):
        before, after = before[:_DIGITS], after[:_DIGITS]
    return Line(_spoken(found.what), before, after, found.change, found.note)


def _spoken(name: str) -> str:
    name = name.removeprefix("provenance.")
    if name.startswith("precision."):
        # Names of blocks are the model's own.
        return name.replace(".", " › ", 1)
    return name.replace("_", " ").replace(".", " › ")
