"""The signed metadata that stands, for the pages that show it."""

from __future__ import annotations

from fastapi import Request
from sqlmodel import Session

from kedge_server.console.figures import figures
from kedge_server.context import Context
from kedge_server.repository.publication import Offline


def standing(request: Request, services: Context, session: Session) -> Offline:
    """Returns the signed metadata that stands; it is read anew when something was published."""
    version = services.repository.timestamp_version
    found = figures(request).offline.get(version, lambda: services.repository.offline(session))
    return found.value
