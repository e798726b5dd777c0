"""When each role's metadata expires."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlmodel import Session
from tuf.api.metadata import Metadata

from kedge_server.operation.inventory import newest_metadata

#: Roles that the server signs anew by itself.
ONLINE = ("snapshot", "timestamp")


def expiries(session: Session) -> dict[str, datetime]:
    """Returns role → when its newest version expires."""
    return {
        role: Metadata[Any].from_bytes(body).signed.expires
        for role, body in newest_metadata(session).items()
    }
