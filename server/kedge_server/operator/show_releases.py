"""How releases, what was reported of them, and two of them side by side are shown."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

import msgspec

from kedge_server.operator.bundle import Made
from kedge_server.operator.show import print_json, print_table, say
from kedge_server.releases.comparing import Difference, Pair, Value
from kedge_server.releases.figures import FIGURES
from kedge_server.releases.precision import counted, in_words
from kedge_shared import api
from kedge_shared.build_report import BuildReport

_WORST, _DIGITS = 3, 12


def releases(found: Sequence[api.ReleaseInfo], *, as_json: bool) -> None:
    """Shows releases, newest first."""
    if as_json:
        return print_json(found)
    rows = [
        (each.model, each.release, str(each.release_counter),
         "taken back by its owners" if each.taken_back else ", ".join(
            build.device_class + (" (overridden)" if build.overrides else "")
            for build in each.builds
        ))
        for each in found
    ]  # fmt: skip
    return print_table(
        "Releases",
        ("model", "release", "counter", "builds"),
        rows,
        "No release yet: build one with `kedge build`, then `kedge publish`.",
    )


def release(
    found: api.ReleaseInfo, reports: Mapping[str, BuildReport | None], *, as_json: bool
) -> None:
    """Shows one release.

    Args:
        found: It.
        reports: Device class → what its builder reported; ``None`` if that was not published.
        as_json: For machines: the release with ``reports`` beside its builds.
    """
    if as_json:
        return print_json({**msgspec.to_builtins(found), "reports": reports})
    rows = [
        (
            each.device_class,
            each.engine[:12],
            f"{each.size_bytes / 2**20:.1f} MiB",
            each.verdict,
            ", ".join(each.overrides),
        )
        for each in found.builds
    ]
    columns = ("device class", "engine", "size", "verdict", "overrides")
    print_table(f"{found.model} {found.release}", columns, rows, "No build.")
    for name, report in reports.items():
        for line in _reported(report):
            say(f"{name}: {line}")
    return None


def _reported(report: BuildReport | None) -> Iterator[str]:
    """Yields what people read of a report."""
    if report is None:
        yield "published without its builder's report"
        return
    loss = report.loss
    range_ = ""
    if loss.low is not None and loss.high is not None:
        range_ = f" ({100 * loss.low:.2f} to {100 * loss.high:.2f}, 95 %)"
    yield f"lost {100 * loss.estimate:.2f} points of mAP50-95{range_} on {report.images} images"
    worst = sorted(loss.per_class.items(), key=lambda each: -each[1])[:_WORST]
    if worst:
        yield "worst classes " + ", ".join(f"{name} {100 * lost:.2f}" for name, lost in worst)
    yield f"{report.form}, {report.plan}; layers {in_words(counted(report))}"
    if report.search is not None:
        yield f"searched {report.search.measured} points: {report.search.reason}"


def comparison(found: Sequence[Pair], names: tuple[str, str], *, as_json: bool) -> None:
    """Shows two releases side by side."""
    if as_json:
        return print_json(found)
    rows = [row for each in found for row in _pair(each)]
    columns = ("class", "what", *names, "change")
    return print_table("Releases compared", columns, rows, "Neither has a build.")


def _pair(found: Pair) -> Iterator[tuple[str, ...]]:
    if found.missing:
        sides = ("none", "there") if found.missing == "before" else ("there", "none")
        yield (found.device_class, "build", *sides, "")
        return
    for figure in found.figures:
        yield _row(found.device_class, figure, _figure)
    for setting in found.settings:
        yield _row(found.device_class, setting, _setting)
    yield found.device_class, "other settings", str(found.same), str(found.same), "same"


def _row(
    name: str, found: Difference[Value], write: Callable[[str, Value], str]
) -> tuple[str, ...]:  # fmt: skip
    before = "none" if found.before is None else write(found.what, found.before)
    after = "none" if found.after is None else write(found.what, found.after)
    ratio = "" if found.ratio is None or found.change == "same" else f"{found.ratio:+.1%}"
    change = " ".join(each for each in (found.change, ratio, found.note) if each)
    return name, found.what, before, after, change


def _setting(what: str, value: str) -> str:
    return value[:_DIGITS] if what.endswith("sha256") else value


def _figure(what: str, value: float) -> str:
    unit = FIGURES[what].unit if what in FIGURES else ""
    return f"{value:.4g} {unit}".rstrip()


def bundle(made: Made, *, as_json: bool) -> None:
    """Shows what a bundle holds."""
    if as_json:
        print_json(made)
        return
    table = made.table
    classes = ", ".join(each.device_class for each in table.builds)
    say(f"{made.path}: {table.model} {table.release} for {classes}, {made.size_bytes / 1e6:.1f} MB")
    say(f"assignments: {', '.join(table.devices) or 'none'}")
    say(f"boards take it until {made.expires}")
