from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest

from kedge_agent.tuf_client import ImageRepository
from kedge_builder.publishing.keyring import Keyring
from tests.server.fleet_keys import Enrol
from tests.server.people import browser
from tests.sim.postgres import Postgres, missing, postgres
from tests.sim.world import World, world


@pytest.fixture(scope="session")
def postgresql() -> Iterator[Postgres]:
    why = missing()
    if why:
        pytest.skip(why)
    with postgres() as found:
        yield found


@pytest.fixture
def database() -> str:
    """SQLite, where a module does not ask for both (tests/server/both.py)."""
    return ""


@pytest.fixture
def running(tmp_path: Path, database: str) -> Iterator[World]:
    with world(tmp_path) as found:
        yield found


@pytest.fixture
def ring(running: World) -> Keyring:
    return Keyring.load(running.trust.offline)


@pytest.fixture
def enrol(running: World, tmp_path: Path) -> Iterator[Enrol]:
    """Makes boards' views of the image repository."""
    with ExitStack() as opened:

        def make(name: str) -> ImageRepository:
            token = running.enrol(name).http.headers["Authorization"].split()[1]
            found = ImageRepository(running.url, token, tmp_path / name, running.trust.root)
            opened.callback(found.close)
            return found

        yield make


@pytest.fixture(scope="module")
def ada(fleet: World) -> Iterator[httpx.Client]:
    """The admin's browser, over the fleet of a module whose people are those of ``people.py``."""
    with browser(fleet, "ada") as client:
        yield client
