"""``/trust``."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response
from sqlmodel import Session

from kedge_server.auth import MayRead
from kedge_server.console import render
from kedge_server.console.figures import figures
from kedge_server.console.route import ConsoleRoute
from kedge_server.console.standing import standing
from kedge_server.console.trust import identity
from kedge_server.console.trust.roles import Standing, views
from kedge_server.context import Context, Services
from kedge_server.database import now, transaction
from kedge_server.repository.publication import Offline
from kedge_shared.errors import KedgeError
from kedge_shared.trust import DirectorKey

router = APIRouter(prefix="/trust", route_class=ConsoleRoute)


@router.get("")
def show(request: Request, services: Services, who: MayRead) -> Response:
    """Shows who may sign what, and how the boards' keys stand."""
    with transaction(services.engine) as session:
        offline = standing(request, services, session)
        roles = views(_standing(session, services, offline), now(session))

    def counted() -> identity.Identities:
        with transaction(services.engine) as session:
            return identity.count(session)

    # Of the whole fleet: who is confined to a part of it is not told.
    boards = figures(request).identities.get("", counted) if who.reach.whole else None
    return render.page(
        request, who, "trust/page.html", part="trust/roles.html", roles=roles, boards=boards
    )


def _standing(session: Session, services: Context, offline: Offline) -> Standing:
    repository, settings = services.repository, services.settings
    return Standing(
        offline, repository.online(session), director=_director(session, services),
        lives={"snapshot": settings.snapshot_days * 86400.0,
               "timestamp": settings.timestamp_hours * 3600.0},
        held=repository.held_keys | services.director.held_keys,
    )  # fmt: skip


def _director(session: Session, services: Context) -> DirectorKey | None:
    try:
        return services.repository.director(session)
    except KedgeError:
        return None  # the page says that none is named
