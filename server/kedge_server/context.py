"""What a request works with: made once by app.py, handed to every route."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, cast

from fastapi import Depends, Request
from sqlalchemy import Engine

from kedge_server.artifacts.store import ArtifactStore
from kedge_server.devices.access import Access
from kedge_server.devices.assignments import Director
from kedge_server.devices.index import PollIndex
from kedge_server.repository.service import ImageRepository
from kedge_server.settings import ServerSettings
from kedge_server.throttle import Throttle


@dataclass(frozen=True)
class Context:
    """The server's parts.

    Attributes:
        settings: Settings.
        engine: Database.
        store: Artifacts.
        repository: TUF metadata.
        director: Signs assignments.
        index: Answers polls.
        access: Reads and makes boards' access tokens.
        throttle: How often somebody may try.
    """

    settings: ServerSettings
    engine: Engine
    store: ArtifactStore
    repository: ImageRepository
    director: Director
    index: PollIndex
    access: Access
    throttle: Throttle


def _context(request: Request) -> Context:
    return cast("Context", request.app.state.context)


Services = Annotated[Context, Depends(_context)]
