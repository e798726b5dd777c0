"""``/login`` and ``/logout``."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Form, Request, Response
from starlette.status import HTTP_303_SEE_OTHER

from kedge_server.accounts.routes import begin_session, end_session
from kedge_server.auth import Known
from kedge_server.console import render
from kedge_server.console.route import ConsoleRoute
from kedge_server.context import Services
from kedge_server.errors import BusyError, ForbiddenError, UnauthorizedError
from kedge_shared.accounts import PASSWORD_MOST, Login

router = APIRouter(route_class=ConsoleRoute)

Next = Annotated[str, Form(max_length=2000)]
#: What browsers say of a form that this page's own or nobody's page sent.
_OWN = frozenset({"same-origin", "none"})


@router.get("/login")
def show(next: str = "/") -> Response:
    """Asks for name and password."""
    return render.part("access/login.html", next=_local(next), name="", problem="")


@router.post("/login")
def log_in(
    request: Request, services: Services,
    name: Annotated[str, Form(max_length=64)],
    password: Annotated[str, Form(max_length=PASSWORD_MOST)],
    next: Next = "/",
) -> Response:  # fmt: skip
    """Opens a session and goes where somebody wanted to."""
    if request.headers.get("sec-fetch-site", "none") not in _OWN:
        # A foreign page could otherwise log a browser in as somebody else.
        raise ForbiddenError("this login was sent by another site's page", "log in at /login")
    response = Response(status_code=HTTP_303_SEE_OTHER, headers={"Location": _local(next)})
    try:
        begin_session(Login(name=name, password=password), request, response, services)
    except (UnauthorizedError, BusyError) as error:
        return render.part(
            "access/login.html", error.status, next=_local(next), name=name, problem=str(error)
        )
    return response


@router.post("/logout")
def log_out(request: Request, services: Services, who: Known) -> Response:
    """Ends the session."""
    response = render.go(request, "/login")
    end_session(request, response, services, who)
    return response


def _local(path: str) -> str:
    """Returns a path on this server: an address elsewhere would be a trap after the login."""
    elsewhere = not path.startswith("/") or path.startswith(("//", "/\\")) or not path.isprintable()
    return "/" if elsewhere else path
