"""Keeps vendors' prints off standard output, which belongs to the command's own answer."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator


@contextlib.contextmanager
def silence() -> Iterator[None]:
    """Swallows what Python code prints; an exception's text is not affected."""
    with contextlib.redirect_stdout(io.StringIO()):
        yield
