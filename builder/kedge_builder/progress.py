"""Progress of a build: a bar with time left on a terminal, one line a stage elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    SpinnerColumn,
    TextColumn,
    TimeRemainingColumn,
)
from rich.progress import Progress as Bar


class Progress:
    """Shows stages on standard error.

    Args:
        quiet: Show nothing.
    """

    def __init__(self, *, quiet: bool = False) -> None:
        self._quiet = quiet
        self._console = Console(stderr=True)
        self._bar: Bar | None = None

    @contextmanager
    def stage(self, name: str, steps: int | None = None) -> Iterator[Callable[[], None]]:
        """Shows a stage while it runs.

        Args:
            name: Of the stage.
            steps: How often the function that is yielded will be called, if that is known.
        """
        if self._quiet or not self._console.is_terminal:
            if not self._quiet:
                self._console.print(name, highlight=False)
            yield lambda: None
            return
        with self._shown() as bar:
            task = bar.add_task(name, total=steps)
            try:
                yield lambda: bar.advance(task)
            finally:
                bar.remove_task(task)

    @contextmanager
    def _shown(self) -> Iterator[Bar]:
        """Yields the one display; a stage within a stage is a line of its own in it."""
        if self._bar is not None:
            yield self._bar
            return
        columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(),
                   MofNCompleteColumn(), TimeRemainingColumn())  # fmt: skip
        with Bar(*columns, console=self._console, transient=True) as bar:
            self._bar = bar
            try:
                yield bar
            finally:
                self._bar = None
