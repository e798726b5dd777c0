"""A folder that one process at a time works in."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def locked(folder: Path, *, wait: bool) -> Iterator[None]:
    """Keeps other processes that ask the same from a folder, while it lasts.

    The folder itself is locked (``flock``): nothing is written, so it works on a full or read-only
    disk, and the lock ends with the process however that ends. A file system without locks keeps
    nobody out: that is no reason to stand still.

    Args:
        folder: It is there.
        wait: Until the other one is done; else be told.

    Raises:
        BlockingIOError: Another process holds it, and it is not waited for.
        OSError: The folder cannot be opened.
    """
    held = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        try:
            fcntl.flock(held, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise
        except OSError:
            pass
        yield
    finally:
        os.close(held)
