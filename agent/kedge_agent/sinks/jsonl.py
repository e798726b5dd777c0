"""One JSON line a frame, bounded in size: a full disk costs lines, never the loop."""

from __future__ import annotations

from pathlib import Path
from typing import IO

from kedge_agent.sinks.base import Result, as_json
from kedge_shared.errors import StorageError


class JsonLines:
    """Appends lines to a file and turns it over at its size."""

    def __init__(self, path: Path, max_mb: float) -> None:
        self._path, self._limit = path, int(max_mb * 2**20)
        self._file: IO[bytes] | None = None
        self._torn = False

    def put(self, result: Result) -> None:
        """Writes one line.

        Raises:
            StorageError: The disk did not take it.
        """
        # Where the disk took half a line, the next one must not be glued to it.
        whole = (b"\n" if self._torn else b"") + as_json(result) + b"\n"
        try:
            self._torn = self._open().write(whole) != len(whole)
        except OSError as error:
            self.close()
            raise StorageError(f"{self._path} cannot be written: {error.strerror}") from None
        if self._torn:
            raise StorageError(f"{self._path} cannot be written: disk full")

    def close(self) -> None:
        """Closes the file."""
        file, self._file = self._file, None
        if file is not None:
            file.close()

    def _open(self) -> IO[bytes]:
        if self._file is not None and self._file.tell() >= self._limit:
            self.close()
            self._path.replace(self._path.with_name(self._path.name + ".1"))
        if self._file is None:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            # Unbuffered: what reached the sink is on record even if the process is killed.
            self._file = self._path.open("ab", buffering=0)
        return self._file
