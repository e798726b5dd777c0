"""A vendor's library that does harm when its process ends."""

from __future__ import annotations

from pathlib import Path

import pytest


def aborts_at_exit(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Has each Python that is started from now on abort where libraries are taken down."""
    (folder / "sitecustomize.py").write_text("import atexit, os\natexit.register(os.abort)\n")
    monkeypatch.setenv("PYTHONPATH", str(folder))
