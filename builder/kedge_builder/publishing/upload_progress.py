"""A progress bar with time left for uploads; silent where nobody watches."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn


@contextmanager
def upload_progress() -> Iterator[Callable[[int, int, str], None]]:
    """Yields a function (bytes sent, bytes in all, file name) that draws on standard error."""
    console = Console(stderr=True)
    bar = Progress(
        TextColumn("uploading {task.fields[name]}"),
        BarColumn(),
        DownloadColumn(),
        TimeRemainingColumn(),
        console=console,
        disable=not console.is_terminal,
        transient=True,
    )
    with bar:
        task = bar.add_task("upload", total=None, name="")

        def show(done: int, total: int, name: str) -> None:
            bar.update(task, completed=done, total=total, name=name)

        yield show
