"""What a worker remembers over a restart: jobs it began, and the newest time it was told."""

from __future__ import annotations

from pathlib import Path

import msgspec

from kedge_agent.disk import write_whole
from kedge_shared import wire
from kedge_shared.bench import BenchJob
from kedge_shared.errors import StorageError

_LIMIT_BYTES = 4 * 1024 * 1024


class _Page(msgspec.Struct, frozen=True):
    began: dict[str, int] = {}
    newest: int = 0


class Diary:
    """Written before a job begins: an engine that takes the board down is not run there twice.

    Args:
        path: Its file.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._page = _Page()
        if path.exists():
            data = wire.read_limited(path, "bench diary", _LIMIT_BYTES)
            try:
                self._page = msgspec.json.decode(data, type=_Page)
            except msgspec.MsgspecError as error:
                raise StorageError(f"{path} cannot be read: {error}", "move it away") from None

    @property
    def began(self) -> frozenset[str]:
        """Jobs that were begun and have not expired."""
        return frozenset(self._page.began)

    @property
    def newest(self) -> int:
        """Newest ``issued`` of a trusted job, Unix seconds."""
        return self._page.newest

    def begin(self, job: BenchJob) -> None:
        """Remembers a job until it expires by the newest time known.

        Raises:
            StorageError: The disk is full or cannot be written.
        """
        newest = max(self._page.newest, job.issued)
        began = {name: until for name, until in self._page.began.items() if until > newest}
        self._write(_Page({**began, job.id: job.expires}, newest))

    def forget(self, job: str) -> None:
        """Lets a job be begun again: the worker itself broke it off."""
        began = {name: until for name, until in self._page.began.items() if name != job}
        self._write(_Page(began, self._page.newest))

    def _write(self, page: _Page) -> None:
        write_whole(self._path, msgspec.json.encode(page))
        self._page = page
