"""For modules whose tests run on SQLite and on PostgreSQL: ``from … import database``."""

from __future__ import annotations

import pytest


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Lets servers use a fresh database; returns its URL, empty for SQLite."""
    if request.param == "sqlite":
        return ""
    url: str = request.getfixturevalue("postgresql").fresh()
    monkeypatch.setenv("KEDGE_SERVER_DATABASE", url)
    return url
