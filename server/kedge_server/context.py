"""What a request works with: made once by app.py, handed to every route."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import Annotated, cast

from fastapi import Depends, Request
from sqlalchemy import Engine

from kedge_server.artifacts.slots import Slots
from kedge_server.artifacts.store import Store
from kedge_server.devices.access import Access
from kedge_server.devices.assignments import Director
from kedge_server.devices.index import PollIndex
from kedge_server.replicas.follower import Follower
from kedge_server.replicas.lease import Lease
from kedge_server.repository.service import ImageRepository
from kedge_server.rollouts.pace import Pace
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
        index: What polls are answered from.
        follower: Keeps it true.
        lease: Who leads.
        slots: Downloads at once.
        access: Reads and makes boards' access tokens.
        throttle: How often somebody may try.
        pace: How often rollouts are looked at.
        stopping: Set once the server ends: what takes its time takes it no longer.
    """

    settings: ServerSettings
    engine: Engine
    store: Store
    repository: ImageRepository
    director: Director
    index: PollIndex
    follower: Follower
    lease: Lease
    slots: Slots
    access: Access
    throttle: Throttle
    pace: Pace = field(default_factory=Pace)
    stopping: threading.Event = field(default_factory=threading.Event)


def _context(request: Request) -> Context:
    return cast("Context", request.app.state.context)


Services = Annotated[Context, Depends(_context)]
