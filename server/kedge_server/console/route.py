"""Routes of pages: their errors are pages too, and a stranger is led to the login."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, cast
from urllib.parse import quote, urlsplit

from fastapi import Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException
from starlette.types import Message

from kedge_server.answers import DATABASE_ERRORS, problem_of
from kedge_server.bodies import ASKED_LIMIT_BYTES, read_bytes
from kedge_server.console import pages, render
from kedge_server.events.stream import Feed
from kedge_shared import wire
from kedge_shared.api import Problem
from kedge_shared.errors import KedgeError

Handler = Callable[[Request], Coroutine[Any, Any, Response]]
_KNOWN = (KedgeError, RequestValidationError, HTTPException, *DATABASE_ERRORS)


class ConsoleRoute(APIRoute):
    """A route whose body is read no further than its limit and whose errors are HTML."""

    def get_route_handler(self) -> Handler:
        """Returns the handler with what is around it."""
        handler = super().get_route_handler()

        async def answered(request: Request) -> Response:
            try:
                # Before the page is made: it is sent what came after, so that it misses nothing.
                if request.method == "GET" and not render.is_part(request):
                    feed = cast("Feed", request.app.state.feed)
                    _, request.state.newest = await feed.bounds()
                return await handler(await _bounded(request))
            except _KNOWN as error:
                return error_page(request, error)

        return answered


async def _bounded(request: Request) -> Request:
    body = await read_bytes(request, ASKED_LIMIT_BYTES)

    async def again() -> Message:
        return {"type": "http.request", "body": body, "more_body": False}

    return Request(request.scope, again)


def wants_page(request: Request) -> bool:
    """Says whether a person asks with a browser; programs are answered in JSON."""
    return "text/html" in request.headers.get("accept", "")


def error_page(request: Request, error: Exception) -> Response:
    """Returns an error as a page, as a notice in the page that asked, or as the way to log in.

    Raises:
        Exception: ``error`` itself, where it is a bug.
    """
    status, problem = _told(error)
    if status == 401 and render.is_part(request):
        return Response(status_code=401, headers={"HX-Redirect": _login(request, back=False)})
    if status == 401 and wants_page(request):
        return Response(status_code=303, headers={"Location": _login(request, back=True)})
    template = "problem.html" if render.is_part(request) else "error.html"
    near = pages.near(request.url.path) if status == 404 else None
    return render.part(template, status, status=status, problem=problem, near=near)


def _told(error: Exception) -> tuple[int, Problem]:
    if isinstance(error, RequestValidationError):
        first = error.errors()[0]
        return 422, Problem(error=f"{first['loc'][-1]}: {first['msg']}", mend="change it and retry")
    if isinstance(error, HTTPException):
        return error.status_code, Problem(error=str(error.detail))
    status, body, _ = problem_of(error)
    return status, wire.decode(body, Problem, "problem")


def _login(request: Request, *, back: bool) -> str:
    if back:
        path = request.url.path + (f"?{request.url.query}" if request.url.query else "")
        wanted = path if request.method == "GET" else "/"
    else:
        open_page = urlsplit(request.headers.get("hx-current-url", ""))
        wanted = open_page.path + (f"?{open_page.query}" if open_page.query else "")
    return f"/login?next={quote(wanted, safe='/')}" if wanted not in {"", "/"} else "/login"
