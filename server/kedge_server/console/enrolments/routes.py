"""``/enrolments``."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Form, Request, Response

from kedge_server.auth import MayEnrol
from kedge_server.console import render
from kedge_server.console.figures import figures
from kedge_server.console.route import ConsoleRoute
from kedge_server.context import Services
from kedge_server.database import transaction
from kedge_server.devices import desk, enrolment, pending
from kedge_shared.api import TokenRequest

router = APIRouter(prefix="/enrolments", route_class=ConsoleRoute)
_HOUR = 3600


@router.get("")
def show(request: Request, services: Services, who: MayEnrol) -> Response:
    """Shows who waits, and how boards come in."""
    with transaction(services.engine) as session:
        waiting = pending.waiting(session)
        announced = pending.announced(session, most=100)
    return render.page(
        request, who, "enrolments/page.html", part="enrolments/waiting.html", waiting=waiting,
        announced=announced, limit=services.settings.pending_limit,
    )  # fmt: skip


@router.post("/tokens")
def tokens(
    request: Request, services: Services, who: MayEnrol,
    count: Annotated[int, Form(ge=1, le=100)] = 1,
    hours: Annotated[float, Form(ge=0.1, le=720)] = 24,
) -> Response:  # fmt: skip
    """Makes one-time tokens; they are shown once."""
    with transaction(services.engine) as session:
        asked = TokenRequest(count=count, ttl_seconds=round(hours * _HOUR))
        made = enrolment.make_tokens(session, asked, str(who))
    return render.part("enrolments/tokens.html", tokens=made, server=str(request.base_url))


@router.post("/{fingerprint}/approve")
def approve(fingerprint: str, request: Request, services: Services, who: MayEnrol) -> Response:
    """Takes a board in."""
    desk.approve(services, fingerprint, who)
    figures(request).forget()
    return render.go(request, "/enrolments")


@router.post("/{fingerprint}/reject")
def reject(fingerprint: str, request: Request, services: Services, who: MayEnrol) -> Response:
    """Refuses a board."""
    desk.reject(services, fingerprint, who)
    return render.go(request, "/enrolments")
