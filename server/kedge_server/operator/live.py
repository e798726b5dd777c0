"""A rollout as it goes on: drawn in place on a terminal, a line for each change elsewhere."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from kedge_server.operator import show
from kedge_server.operator.event_cli import event_line
from kedge_shared.errors import one_line

if TYPE_CHECKING:
    from kedge_shared import api
    from kedge_shared.events import EventInfo

#: Events under the table; older ones scroll away.
_EVENTS = 8
_AWAY = "the server does not answer; trying again"


class Screen(Protocol):
    """Where a rollout is shown."""

    def event(self, event: EventInfo) -> None:
        """Shows that something happened to it."""

    def state(self, info: api.RolloutInfo) -> None:
        """Shows where it stands."""

    def away(self) -> None:
        """Shows that the server does not answer."""


@contextmanager
def screen(*, quiet: bool) -> Iterator[Screen]:
    """Yields what suits the terminal; ``quiet`` shows nothing."""
    console = Console()
    if quiet:
        yield _Nothing()
    elif not console.is_terminal:
        yield _Lines()
    else:
        with Live(console=console, auto_refresh=False, transient=True) as live:
            yield _Drawn(live)


class _Nothing:
    def event(self, event: EventInfo) -> None:
        """Nothing."""

    def state(self, info: api.RolloutInfo) -> None:
        """Nothing."""

    def away(self) -> None:
        """Nothing."""


class _Lines:
    """A log: the same line is not written twice."""

    def __init__(self) -> None:
        self._last = ""

    def event(self, event: EventInfo) -> None:
        """Writes a line."""
        print(event_line(event), flush=True)

    def state(self, info: api.RolloutInfo) -> None:
        """Writes a line if something changed."""
        line = show.progress_line(info)
        self._write(line)

    def away(self) -> None:
        """Writes a line, once."""
        self._write(_AWAY)

    def _write(self, line: str) -> None:
        if line != self._last:
            print(line, flush=True)
            self._last = line


class _Drawn:
    """A table of stages with bars, and the newest events under it."""

    def __init__(self, live: Live) -> None:
        self._live, self._events = live, deque[str](maxlen=_EVENTS)
        self._info: api.RolloutInfo | None = None

    def event(self, event: EventInfo) -> None:
        """Draws anew with one event more."""
        self._events.append(event_line(event))
        self._draw()

    def state(self, info: api.RolloutInfo) -> None:
        """Draws anew."""
        self._info = info
        self._draw()

    def away(self) -> None:
        """Draws anew, with a line more."""
        if not self._events or self._events[-1] != _AWAY:
            self._events.append(_AWAY)
        self._draw()

    def _draw(self) -> None:
        parts: list[RenderableType] = []
        if self._info is not None:
            parts.append(_stages(self._info))
        parts += [Text(each, style="dim", overflow="ellipsis", no_wrap=True)
                  for each in self._events]  # fmt: skip
        self._live.update(Group(*parts), refresh=True)


def _stages(info: api.RolloutInfo) -> Table:
    title = Text(one_line(f"{info.id}: {info.model} {info.release}, {info.state}"))
    caption = Text(one_line(info.reason))
    table = Table(title=title, caption=caption, title_justify="left", caption_justify="left")
    for column in ("stage", "state", "", "healthy", "failed", "undecided", "gate"):
        table.add_column(column)
    for each in info.stages:
        done = each.healthy + each.failed + each.undecided
        table.add_row(
            Text(one_line(each.title)),
            Text(each.state, style=show.COLOURS.get(each.state, "")),
            ProgressBar(total=max(each.devices, 1), completed=done, width=16),
            f"{each.healthy}/{each.devices}",
            Text(str(each.failed), style="red" if each.failed else ""),
            str(each.undecided),
            Text(one_line(each.reason)),
        )
    return table
