"""Progress of a build: a bar with time left on a terminal, lines now and then elsewhere."""

from __future__ import annotations

import time
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

#: In a log a long stage says at most this often how far it is.
_LINE_SECONDS = 30.0


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
            yield (lambda: None) if self._quiet else self._lines(name, steps)
            return
        with self._shown() as bar:
            task = bar.add_task(name, total=steps)
            try:
                yield lambda: bar.advance(task)
            finally:
                bar.remove_task(task)

    def _lines(self, name: str, steps: int | None) -> Callable[[], None]:
        """Says that a stage began; what is returned says how far it is, now and then."""
        began = said = time.monotonic()
        done = 0
        self._console.print(name, highlight=False)

        def tick() -> None:
            nonlocal done, said
            done += 1
            now = time.monotonic()
            if steps and done < steps and now - said >= _LINE_SECONDS:
                said = now
                left = (now - began) / done * (steps - done)
                self._console.print(f"{name}: {done} of {steps}, {_minutes(left)} left",
                                    highlight=False)  # fmt: skip

        return tick

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


def _minutes(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"
