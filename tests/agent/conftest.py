from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.sim.board import SimBoard
from tests.sim.world import World, world


@pytest.fixture
def running(tmp_path: Path) -> Iterator[World]:
    with world(tmp_path) as found:
        yield found


@pytest.fixture
def board(running: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SimBoard:
    """A board that is not enrolled yet."""
    return SimBoard(running, tmp_path / "board", monkeypatch)
