"""Small files of /proc and /sys."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

_LIMIT_BYTES = 64 * 1024
#: What a kernel counts in; anything beyond is garbage.
_LARGEST = 2**64


def text(path: Path) -> str:
    """Returns a file's text without white space around it; empty if there is none to be had.

    A sensor that sleeps answers EAGAIN, one of another driver garbage: neither is an error.
    """
    try:
        with path.open("rb") as file:
            return file.read(_LIMIT_BYTES).decode(errors="replace").strip(" \t\r\n\0")
    except OSError:
        return ""


def number(path: Path) -> int | None:
    """Returns a file's whole number (decimal), or ``None``."""
    try:
        value = int(text(path))
    except ValueError:
        return None
    return value if abs(value) <= _LARGEST else None


def found(root: Path, pattern: str) -> Iterator[Path]:
    """Returns the paths of a pattern under a root, in order."""
    yield from sorted(root.glob(pattern))
