"""The newest annotated frame of each source as a file that is always whole."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from kedge_agent.sinks.base import Result
from kedge_agent.sinks.drawing import as_jpeg
from kedge_shared.errors import StorageError


class Snapshot:
    """Replaces ``PATH``; of a source that is not called ``main``, ``PATH`` with ``-NAME``.

    Args:
        path: JPEG file.
        every_seconds: Least time between two pictures of a source.
        clock: Monotonic seconds.
    """

    def __init__(
        self, path: Path, every_seconds: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._path, self._every, self._clock = path, every_seconds, clock
        self._last: dict[str, float] = {}

    def put(self, result: Result) -> None:
        """Replaces the picture if it is time.

        Raises:
            StorageError: The disk did not take it; the old picture is still there.
        """
        now = self._clock()
        last = self._last.get(result.source)
        if last is not None and now - last < self._every:
            return
        self._last[result.source] = now
        path = self._path
        if result.source != "main":
            path = path.with_name(f"{path.stem}-{result.source}{path.suffix}")
        # Replaced whole but not synced: a picture that a power cut takes is no loss, and a flash
        # disk that is synced every second is.
        scratch = path.with_name(f".{path.name}.new")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            scratch.write_bytes(as_jpeg(result))
            scratch.replace(path)
        except OSError as error:
            raise StorageError(f"{path} cannot be written: {error.strerror}") from None

    def close(self) -> None:
        """Nothing is open."""
