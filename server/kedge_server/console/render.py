"""Templates as answers: the layout around a page, the policy it runs under."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

from fastapi import Request, Response
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from kedge_server.accounts.principal import Principal
from kedge_server.accounts.roles import Permission
from kedge_server.console import assets, pages, words
from kedge_server.context import Context
from kedge_server.events.kinds import KNOWN
from kedge_shared import __version__

#: No inline script, no inline style, nothing from elsewhere, no frame.
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
)
_FOLDER = Path(__file__).parent


def _environment() -> Environment:
    made = Environment(
        loader=FileSystemLoader(_FOLDER), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True, auto_reload=False,
    )  # fmt: skip
    made.globals |= {
        "asset": assets.address, "version": __version__, "Permission": Permission,
        "kinds": " ".join(KNOWN),
    }  # fmt: skip
    made.filters |= words.FILTERS
    return made


_TEMPLATES = _environment()


def warm() -> None:
    """Compiles every template: a third of a second that the first who looks need not wait for."""
    for name in _TEMPLATES.list_templates(extensions=("html",)):
        _TEMPLATES.get_template(name)


def is_part(request: Request) -> bool:
    """Says whether a page that is open asks for a part of itself."""
    return "hx-request" in request.headers


def page(
    request: Request, who: Principal, template: str, *, part: str = "", status: int = 200,
    **values: Any,
) -> Response:  # fmt: skip
    """Returns a page, or, asked by one that is open, only the part of it that changes.

    Args:
        request: Who asks for it.
        who: Who looks.
        template: Of the whole page; extends ``layout.html``.
        part: Template of the part that the whole page includes; empty without one.
        status: HTTP status.
        values: What the template shows.
    """
    name = part if part and is_part(request) else template
    context = cast("Context", request.app.state.context)
    section = template.partition("/")[0]
    shared = {
        "who": who, "may": who.permissions, "section": section, "path": request.url.path,
        "pages": pages.shown_to(who.permissions), "alarm": context.repository.alarm,
        "newest": getattr(request.state, "newest", ""),
    }  # fmt: skip
    return answer(_TEMPLATES.get_template(name).render(shared | values), status)


def part(template: str, code: int = 200, **values: Any) -> Response:
    """Returns a template without anything around it."""
    return answer(_TEMPLATES.get_template(template).render(values), code)


def answer(body: str, status: int = 200) -> Response:
    """Returns HTML under the console's policy."""
    headers = {"Content-Security-Policy": POLICY, "Vary": "HX-Request"}
    return Response(body, status, headers, "text/html")


def go(request: Request, path: str) -> Response:
    """Sends a browser to a page, whether a form asked or a script."""
    if is_part(request):
        return Response(status_code=204, headers={"HX-Redirect": path})
    return Response(status_code=303, headers={"Location": path})
