"""Adds the console to the application."""

from __future__ import annotations

from fastapi import FastAPI

from kedge_server.console import assets
from kedge_server.console.access import routes as access
from kedge_server.console.figures import Figures
from kedge_server.console.pages import PAGES


def add_console(app: FastAPI) -> None:
    """Adds the pages, how one comes in, and what a browser loads beside them."""
    app.state.console = Figures()
    for each in (assets.router, access.router, *(page.router() for page in PAGES)):
        app.include_router(each, include_in_schema=False)
