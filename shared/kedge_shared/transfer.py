"""A progress bar with time left for uploads and downloads; silent where nobody watches."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn


@contextmanager
def transfer_progress(doing: str) -> Iterator[Callable[[int, int, str], None]]:
    """Yields a function (bytes done, bytes in all, file name) that draws on standard error.

    Args:
        doing: What people read before the name: ``uploading``.
    """
    console = Console(stderr=True)
    bar = Progress(
        TextColumn(f"{doing} {{task.fields[name]}}"),
        BarColumn(),
        DownloadColumn(),
        TimeRemainingColumn(),
        console=console,
        disable=not console.is_terminal,
        transient=True,
    )
    with bar:
        task = bar.add_task(doing, total=None, name="")

        def show(done: int, total: int, name: str) -> None:
            bar.update(task, completed=done, total=total, name=name)

        yield show
