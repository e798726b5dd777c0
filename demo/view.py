"""The live view: a table that is drawn over on a terminal, a line per change elsewhere."""

from __future__ import annotations

import time
from types import TracebackType

from rich.console import Console, Group
from rich.live import Live
from rich.panel import Panel
from rich.table import Table

from kedge_shared import api

_STYLES = {"confirmed": "green", "refused": "red", "rolled_back": "red", "idle": "dim"}


class View:
    """Shows boards, stages and progress. Use as a context manager."""

    def __init__(self) -> None:
        self._console = Console()
        self._live = Live(console=self._console, refresh_per_second=4, transient=True)
        self._last = ""
        self._started = time.monotonic()

    def __enter__(self) -> View:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._live.stop()

    def show(self, rollout: api.RolloutInfo, devices: list[api.DeviceInfo]) -> None:
        """Shows where a rollout and its boards stand."""
        if self._console.is_terminal:
            self._live.start()
            self._live.update(Group(_stages(rollout), _devices(devices)))
            return
        line = f"   {rollout.release} {rollout.state}: " + ", ".join(
            f"{stage.title} {stage.healthy}/{stage.devices}"
            + (f" failed {stage.failed}" if stage.failed else "")
            for stage in rollout.stages
        )
        if line != self._last:
            self._last = line
            self._console.print(line, highlight=False)

    def say(self, text: str) -> None:
        """Says what comes next, with the time since the start; the table gives way to it."""
        self._live.stop()
        self._console.print(f"[{time.monotonic() - self._started:5.0f} s] {text}",
                            highlight=False, markup=False)  # fmt: skip


def _stages(rollout: api.RolloutInfo) -> Panel:
    lines = [
        f"{stage.title:>7}  {'█' * stage.healthy}{'✗' * stage.failed}"
        f"{'·' * (stage.pending + stage.undecided)}  {stage.state}  {stage.reason}"
        for stage in rollout.stages
    ]
    title = f"release {rollout.release}: {rollout.state}"
    return Panel("\n".join(lines), title=title, title_align="left")


def _devices(devices: list[api.DeviceInfo]) -> Table:
    table = Table("board", "class", "serves", "last update", "frame time p95", "frames")
    for each in devices:
        phase = each.phase.value
        style = _STYLES.get(phase, "yellow")
        p95 = "" if each.latency_p95_ms is None else f"{each.latency_p95_ms:.1f} ms"
        table.add_row(
            each.id, each.device_class, each.release or "nothing yet",
            f"[{style}]{phase}[/]", p95, str(each.frames),
        )  # fmt: skip
    return table


def summary_table(releases: list[dict[str, object]]) -> Table:
    """Returns the table at the end."""
    table = Table("release", "verdict", "stopped by", "stopped in", "why")
    for each in releases:
        good = each["verdict"] == "completed"
        table.add_row(
            str(each["version"]), f"[{'green' if good else 'red'}]{each['verdict']}[/]",
            str(each["stopped_by"] or ""), str(each["stopped_in"] or ""),
            "" if good else str(each["reason"]),
        )  # fmt: skip
    return table
